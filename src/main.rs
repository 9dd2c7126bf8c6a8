//! Entry point; installs the allocator, which counts what is in use and wipes what is freed.

use std::process::ExitCode;

use cap::Cap;
use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is freed, by whichever library: HTTP clients, TLS and parsers copy secrets and wipe nothing. Counts the
/// bytes in use, without a limit: the budget is kept by those who allocate. mimalloc returns freed memory to the system within a
/// second.
#[global_allocator]
static HEAP: ZeroAlloc<Cap<MiMalloc>> = ZeroAlloc(Cap::new(MiMalloc, usize::MAX));

fn main() -> ExitCode {
    aem_auth_proxy::memory::install(|| usize::MAX - HEAP.0.remaining());
    aem_auth_proxy::cli::main()
}
