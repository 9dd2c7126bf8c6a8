//! The door, and the memory of all that is behind it.

use std::{alloc::System, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

/// Writes zeros over whatever is freed, by whichever library: HTTP clients, TLS and parsers copy secrets, and wipe nothing.
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    aem_auth_proxy::cli::main()
}
