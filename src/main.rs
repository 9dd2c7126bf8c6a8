//! The door.

use std::process::ExitCode;

fn main() -> ExitCode {
    aem_auth_proxy::cli::main()
}
