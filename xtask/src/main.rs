//! The project's own tasks: the test machine, the demonstration, the test run.

fn main() {
    eprintln!("xtask: no task named; see `cargo xtask --help`");
    std::process::exit(2);
}
