//! `aem_auth_proxy_fuzz::responses`, as long as one lets it.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| aem_auth_proxy_fuzz::responses::check(input));
