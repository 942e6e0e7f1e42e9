//! The project's own tasks: the test machine, the demonstration, the test run.

mod accel;
mod bench;
mod cache;
mod cargo;
mod demo;
mod dist;
mod distro;
mod fuzz;
mod generate;
mod glibc;
mod guest;
mod image;
mod initramfs;
mod kubernetes;
mod layout;
mod libtest;
mod mirror;
mod packages;
mod pages;
mod payload;
mod qemu;
mod say;
mod seeds;
mod shell;
mod survive;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the cgmgr workspace. The guests are small Debian machines in QEMU.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot a guest once and run a command in it.
    Guest(shell::Arguments),
    /// Build the images of the guests, where they are not built already.
    Images {
        /// Only those of this distribution
        #[arg(long, value_enum)]
        distro: Option<distro::Distro>,
        /// Only what guests of this mode need
        #[arg(long, value_enum)]
        mode: Option<distro::Mode>,
    },
    /// Run all the tests: natively, and in guests of each kind.
    Test(test::Arguments),
    /// Run the fuzz targets, each for a while
    Fuzz(fuzz::Arguments),
    /// Show what cgmgr does on a machine with a real kernel.
    Demo(demo::Arguments),
    /// Find out which functions a launch runs, and have the linker put them side by side.
    Layout,
    /// Make what is handed out: archive, Debian package, man pages, completions; into target/dist
    Dist,
    /// Write the files of the repository that are made from the code.
    Generate,
    /// Measure cgmgr beside its peers and the bare floor.
    Bench(bench::Arguments),
    /// Let an independent reader of Kubernetes' schemas look at what `translate` writes.
    Kubernetes,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Guest(arguments) => shell::run(&arguments),
        Task::Images { distro, mode } => images(distro, mode),
        Task::Test(arguments) => test::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Layout => layout::run(),
        Task::Dist => dist::run(),
        Task::Generate => generate::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Kubernetes => kubernetes::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn images(distro: Option<distro::Distro>, mode: Option<distro::Mode>) -> anyhow::Result<ExitCode> {
    let distros = distro.map_or(distro::Distro::ALL.to_vec(), |one| vec![one]);
    let disks = mode.map_or(distro::Disk::ALL.to_vec(), |one| vec![one.disk()]);
    for image in image::ensure_all(&distros, &disks)? {
        say::say(image.disk().display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}
