//! The `farseal` program: a node, and the client of one.

fn main() -> std::process::ExitCode {
    farseal::cli::main(farseal::node::run)
}
