//! What one sample of all groups takes: the library, a bare loop over the very same files, and programs that read them.

use super::groups::Groups;
use super::once::samplers;
use crate::figures::Sample;
use crate::launch::goal;
use crate::machine::{self, run_bare};
use cgmgr::kernel::sample::Fields;
use cgmgr::kernel::sampler::Sampler;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::process::Command;
use std::time::{Duration, Instant};

/// How many groups are read.
const SIZES: [usize; 3] = [100, 1000, 5000];

/// As many sessions as the goals are about.
const USUAL: usize = 1000;

/// Reads the files of all groups, with nothing made of them. Returns how many bytes there were.
fn floor(dirs: &[OwnedFd], files: &[CString]) -> Result<usize, String> {
    let mut space = [0u8; 8192];
    let mut sum = 0;
    for dir in dirs {
        for file in files {
            let read = || {
                let fd = openat(
                    dir,
                    file.as_c_str(),
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                rustix::io::pread(&fd, &mut space[..], 0)
            };
            sum += { read }().map_err(|e| format!("{file:?}: {e}"))?;
        }
    }
    Ok(sum)
}

/// Samples all groups.
fn ours(samplers: &mut [Sampler], what: Fields) -> Result<(), String> {
    for sampler in samplers {
        let sample = sampler.sample(what);
        std::hint::black_box(sample.ok_or("a group is gone")?);
    }
    Ok(())
}

/// Those of a set's files that a group has.
fn files_of(what: Fields, dir: &OwnedFd) -> Vec<CString> {
    what.files()
        .filter(|file| {
            rustix::fs::accessat(
                dir,
                *file,
                rustix::fs::Access::EXISTS,
                rustix::fs::AtFlags::empty(),
            )
            .is_ok()
        })
        .filter_map(|file| CString::new(file).ok())
        .collect()
}

fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let since = Instant::now();
    work()?;
    Ok(since.elapsed())
}

/// CPU time of a program, the kernel's for it included.
fn cpu_of(command: &mut Command) -> Result<Duration, String> {
    let used = || -> Result<Duration, String> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| e.to_string())?;
        let sum = usage.user_time() + usage.system_time();
        Ok(Duration::from_micros(
            (sum.tv_sec() * 1_000_000 + sum.tv_usec()) as u64,
        ))
    };
    let before = used()?;
    run_bare(command)?;
    Ok(used()?.saturating_sub(before))
}

/// Measures each in turn, `rounds` times, with ever more groups.
pub fn bench(rounds: usize) -> Result<(), String> {
    crate::live::raise_open_files()?;
    let mut groups = Groups::new()?;
    let mut medians: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    println!("one sample of all groups: milliseconds, median (quartiles)");
    for size in SIZES {
        groups.grow_to(size)?;
        // Settled: what making them has left to do is not to be measured.
        std::thread::sleep(Duration::from_secs(2));
        let mut samplers = samplers(groups.parent())?;
        for (title, what) in [
            ("all but memory.stat", Fields::CHEAP),
            ("memory.stat too", Fields::ALL),
        ] {
            let files = files_of(what, &groups.dirs[0]);
            let (mut bare, mut library) = (Sample::default(), Sample::default());
            // The first round only fills caches.
            for round in 0..=rounds {
                let floor = timed(|| floor(&groups.dirs, &files).map(drop))?;
                let ours = timed(|| ours(&mut samplers, what))?;
                if round > 0 {
                    bare.add(floor);
                    library.add(ours);
                }
            }
            let ratio = library.median() / bare.median();
            println!(
                "  {size:5} groups, {title:20} ({:2} files)  bare loop {}  library {}  ratio {ratio:.2}",
                files.len(),
                bare.shown(),
                library.shown(),
            );
            medians.entry(title).or_default().push(library.median());
            if size == USUAL {
                goal(&format!("{title}: library / bare loop"), ratio, "at most", 1.3);
            }
        }
        if size == USUAL {
            by_file(&groups, rounds)?;
            programs(&groups, rounds)?;
        }
    }
    for (title, medians) in medians {
        let [.., usual, most] = medians[..] else { continue };
        let ratio = most / usual / (SIZES[2] as f64 / SIZES[1] as f64);
        println!(
            "  {title}: a group among {} takes {ratio:.2} times as long as among {}",
            SIZES[2], SIZES[1]
        );
    }
    groups.remove()
}

/// What each file takes of the bare loop.
fn by_file(groups: &Groups, rounds: usize) -> Result<(), String> {
    println!(
        "  each file by itself, of {} groups: microseconds for one, median",
        groups.dirs.len()
    );
    for file in files_of(Fields::ALL, &groups.dirs[0]) {
        let mut sample = Sample::default();
        for _ in 0..rounds.min(5) {
            sample.add(timed(|| {
                floor(&groups.dirs, std::slice::from_ref(&file)).map(drop)
            })?);
        }
        let each = sample.median() * 1000.0 / groups.dirs.len() as f64;
        println!("    {:20} {each:7.1}", file.to_string_lossy());
    }
    Ok(())
}

/// Programs that do as much, each from its start to its end.
fn programs(groups: &Groups, rounds: usize) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let library = |what: &str| {
        let mut command = Command::new(&own);
        command.args(["observe-once", what, groups.parent()]);
        command
    };
    let mut all = || library("cheap");
    let mut shown = || library("shown");
    let mut cgtop = || {
        let mut command = Command::new("systemd-cgtop");
        command.args(["-b", "-n1", "--depth=10"]).env("TERM", "dumb");
        command
    };
    let files = files_of(Fields::CHEAP, &groups.dirs[0]);
    let (known, unknown): (Vec<_>, Vec<_>) = files
        .iter()
        .map(|file| file.to_string_lossy().into_owned())
        .partition(|file| run_bare(&mut cgget(groups, &[file], 1)).is_ok());
    if !unknown.is_empty() {
        println!("  cgget does not read {}: left out for it", unknown.join(" "));
    }
    check_cgget(groups, &known)?;
    let mut cgget = || cgget(groups, &known, groups.dirs.len());
    let mut samples: [Sample; 4] = Default::default();
    let mut ways: Vec<(&str, &mut dyn FnMut() -> Command)> = vec![
        ("library, all but memory.stat", &mut all),
        ("library, memory, tasks and CPU", &mut shown),
        ("cgget", &mut cgget),
    ];
    if machine::is_systemd() {
        ways.push(("systemd-cgtop -b -n1 --depth=10", &mut cgtop));
    }
    for round in 0..=rounds.min(10) {
        for ((_, way), sample) in ways.iter_mut().zip(&mut samples) {
            let cpu = cpu_of(&mut way())?;
            if round > 0 {
                sample.add(cpu);
            }
        }
    }
    println!(
        "  one sample of {} groups by a program: milliseconds of CPU, median (quartiles)",
        groups.dirs.len()
    );
    for ((name, _), sample) in ways.iter().zip(&samples) {
        println!("    {name:32} {}", sample.shown());
    }
    let median = |at: usize| samples[at].median();
    goal(
        "cgget / library, the same files",
        median(2) / median(0),
        "at least",
        1.0,
    );
    if machine::is_systemd() {
        println!(
            "  systemd-cgtop / library, all but memory.stat: {:.2}",
            median(3) / median(0)
        );
        goal(
            "systemd-cgtop / library, what both show",
            median(3) / median(1),
            "at least",
            5.0,
        );
    }
    Ok(())
}

fn cgget<T: AsRef<str>>(groups: &Groups, files: &[T], count: usize) -> Command {
    let mut command = Command::new("cgget");
    command.arg("-n");
    for file in files {
        command.args(["-r", file.as_ref()]);
    }
    let parent = groups.parent().trim_start_matches("/sys/fs/cgroup/");
    command.args((0..count).map(|number| format!("{parent}/{}", Groups::name(number))));
    command.stderr(std::process::Stdio::null());
    command
}

/// That it does read what it is compared for.
fn check_cgget(groups: &Groups, files: &[String]) -> Result<(), String> {
    let count = groups.dirs.len();
    let output = cgget(groups, files, count)
        .output()
        .map_err(|e| format!("cgget: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .lines()
        .filter(|line| line.starts_with("memory.max:"))
        .count();
    if found != count {
        return Err(format!(
            "cgget tells memory.max of {found} groups, not of {count}"
        ));
    }
    Ok(())
}
