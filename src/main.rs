//! The `mailonce` command.

fn main() -> std::process::ExitCode {
    mailonce::cli::run(std::env::args_os())
}
