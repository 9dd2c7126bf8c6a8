//! Entry point; installs the allocator, which counts what is in use and wipes what is freed.

use std::process::ExitCode;

use cap::Cap;
use tikv_jemallocator::Jemalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is freed, by whichever library: HTTP clients, TLS and parsers copy secrets and wipe nothing. Counts the
/// bytes in use, without a limit: the budget is kept by those who allocate. jemalloc returns freed memory to the system.
#[global_allocator]
static HEAP: ZeroAlloc<Cap<Jemalloc>> = ZeroAlloc(Cap::new(Jemalloc, usize::MAX));

fn main() -> ExitCode {
    aem_auth_proxy::memory::install(|| usize::MAX - HEAP.0.remaining());
    aem_auth_proxy::cli::main()
}
