//! The guests' disks: a small Debian in an ext4 image, and the kernel that belongs to it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::distro::{Disk, Distro};
use crate::{cache, mirror, packages, say};

/// What is installed in a guest.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-oomd",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "login",
    "passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "util-linux",
    "procps",
    "kmod",
    "iproute2",
    "hostname",
    "linux-image-cloud-amd64",
    "strace",
    "stress-ng",
    "python3",
    "make",
    "cgroup-tools",
    "crun",
    "openssh-server",
    "openssh-client",
    "netcat-openbsd",
];

/// What is installed beside that where the tests of translations run. Debian 12's docker.io has its command in it.
const ENGINES: &[&str] = &[
    "docker.io",
    "docker-compose",
    "podman",
    "runc",
    "slurmd",
    "slurmctld",
    "slurm-client",
    "munge",
];

/// The packages of a disk.
fn packages(distro: Distro, disk: Disk) -> Vec<&'static str> {
    let mut packages = PACKAGES.to_vec();
    if disk == Disk::Engines {
        packages.extend(ENGINES);
        if distro == Distro::Debian13 {
            packages.push("docker-cli");
        }
    }
    packages
}

/// Units that cost a guest seconds to boot and give it nothing.
const MASKED: &[&str] = &[
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-hwdb-update.service",
    "systemd-binfmt.service",
    "systemd-timesyncd.service",
    "systemd-firstboot.service",
    "systemd-journal-catalog-update.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "ldconfig.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@.service",
    "getty@.service",
    "serial-getty@.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "cgconfig.service",
    "cgred.service",
    "sshd-unix-local.socket",
    "sshd-vsock.socket",
];

/// Units that a package enables and that only a test, or a measurement, starts.
const DISABLED: &[&str] = &[
    "multi-user.target.wants/ssh.service",
    "multi-user.target.wants/systemd-oomd.service",
    "sockets.target.wants/systemd-oomd.socket",
];

/// The same of what is on a disk with engines. Podman has no need of any of its units.
const ENGINES_MASKED: &[&str] = &[
    "podman.service",
    "podman.socket",
    "podman-restart.service",
    "podman-auto-update.service",
    "podman-auto-update.timer",
    "netavark-dhcp-proxy.service",
    "netavark-dhcp-proxy.socket",
];

/// And of these.
const ENGINES_DISABLED: &[&str] = &[
    "multi-user.target.wants/containerd.service",
    "multi-user.target.wants/docker.service",
    "multi-user.target.wants/munge.service",
    "multi-user.target.wants/slurmctld.service",
    "multi-user.target.wants/slurmd.service",
    "sockets.target.wants/docker.socket",
];

/// The units of a disk that are masked, and those that are disabled.
fn units(disk: Disk) -> [Vec<&'static str>; 2] {
    match disk {
        Disk::Plain => [MASKED.to_vec(), DISABLED.to_vec()],
        Disk::Engines => [
            [MASKED, ENGINES_MASKED].concat(),
            [DISABLED, ENGINES_DISABLED].concat(),
        ],
    }
}

/// What the kernel needs to see its disks, where it is not built in.
const DISK_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// Raised when the code below changes what it makes of the lists above.
const FORMAT: u32 = 2;

/// An image in the cache.
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// The root file system.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }
    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }
    /// A folder with the modules to load before there is a disk, named in their order.
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }
    /// The shell of the initramfs.
    pub fn busybox(&self) -> PathBuf {
        self.dir.join("busybox")
    }
}

/// The images of these distributions with these disks, those of different distributions built side by side.
pub fn ensure_all(distros: &[Distro], disks: &[Disk]) -> Result<Vec<Image>> {
    packages::ensure()?;
    let all_of = |distro: Distro| disks.iter().map(move |disk| ensure(distro, *disk)).collect();
    std::thread::scope(|scope| {
        let builds: Vec<_> = distros
            .iter()
            .map(|distro| scope.spawn(move || all_of(*distro)))
            .collect();
        let built: Result<Vec<Vec<Image>>> = builds
            .into_iter()
            .map(|build| build.join().map_err(|_| anyhow!("building an image panicked"))?)
            .collect();
        Ok(built?.into_iter().flatten().collect())
    })
}

/// The image of `distro` with this disk: from the cache, or built first.
pub fn ensure(distro: Distro, disk: Disk) -> Result<Image> {
    let images = cache::subdir(&cache::dir()?, "images")?;
    let kind = match disk {
        Disk::Plain => format!("debian{}", distro.number()),
        Disk::Engines => format!("debian{}-engines", distro.number()),
    };
    let packages = packages(distro, disk);
    let image = Image {
        dir: images.join(format!("{kind}-{:016x}", fingerprint(distro, disk, &packages))),
    };
    if image.dir.is_dir() {
        return Ok(image);
    }
    let _lock = cache::lock(&kind)?;
    if image.dir.is_dir() {
        return Ok(image);
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the image of Debian {0} has to be built by root\nhelp: run `cargo xtask images` once as root, \
               with XDG_CACHE_HOME={1}",
            distro.number(),
            cache::dir()?.parent().unwrap_or(&images).display()
        );
    }
    packages::ensure()?;
    cache::need_space(&images, 3 * 1024)?;
    let scratch = cache::scratch(&images)?;
    let root = scratch.path().join("root");
    say::step(
        &format!(
            "building the image of Debian {}{} (about a minute)",
            distro.number(),
            match disk {
                Disk::Plain => "",
                Disk::Engines => " with docker, podman and Slurm",
            }
        ),
        || {
            bootstrap(distro, &packages, &root, &scratch.path().join("mmdebstrap.log"))?;
            let done = cache::subdir(scratch.path(), "done")?;
            extract_boot_files(&root, &done)?;
            settle(&root, disk)?;
            make_disk(&root, &done.join("root.ext4"))?;
            fs::rename(&done, &image.dir).context("cannot put the image into its place")
        },
    )?;
    Ok(image)
}

/// A number that changes whenever an image would come out differently (FNV-1a).
fn fingerprint(distro: Distro, disk: Disk, packages: &[&str]) -> u64 {
    let [masked, disabled] = units(disk);
    let recipe = format!(
        "{FORMAT} {} {packages:?} {masked:?} {disabled:?}",
        distro.codename()
    );
    recipe.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Installs Debian into a folder. In namespaces of its own, so that being killed leaves no mount and no process.
fn bootstrap(distro: Distro, packages: &[&str], root: &Path, log: &Path) -> Result<()> {
    let mirror = mirror::debian()?;
    let trusted = if mirror.trusted { "[trusted=yes] " } else { "" };
    let file = File::create(log)?;
    let status = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args([
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            "--components=main",
        ])
        .arg(format!("--include={}", packages.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--dpkgopt=force-confold")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        // The kernel wants an initramfs made for it; ours is made at each boot.
        .arg(
            "--essential-hook=mkdir -p \"$1/etc/initramfs-tools\" && \
              echo update_initramfs=no >\"$1/etc/initramfs-tools/update-initramfs.conf\"",
        )
        .arg("--customize-hook=chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash coder")
        .arg(distro.codename())
        .arg(root)
        .arg(format!("deb {trusted}{} {} main", mirror.uri, distro.codename()))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("cannot run mmdebstrap")?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!(
            "mmdebstrap failed ({status}); the end of what it printed:\n{}\n\
             help: is {} reachable? `apt-get update` tells; is the disk full? `df {}` tells",
            last_lines(&text, 15),
            mirror.uri,
            root.display()
        );
    }
    Ok(())
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Takes the kernel, the modules and the shell that a boot needs out of the root.
fn extract_boot_files(root: &Path, done: &Path) -> Result<()> {
    let kernel = fs::read_dir(root.join("boot"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))
        })
        .context("the image has no kernel in /boot")?;
    let release = kernel
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .replace("vmlinuz-", "");
    fs::copy(&kernel, done.join("vmlinuz"))?;
    let busybox = ["usr/bin/busybox", "bin/busybox"]
        .map(|p| root.join(p))
        .into_iter()
        .find(|p| p.is_file());
    fs::copy(busybox.context("the image has no busybox")?, done.join("busybox"))?;
    extract_modules(
        &root.join("usr/lib/modules").join(&release),
        &cache::subdir(done, "modules")?,
    )?;
    for entry in fs::read_dir(root.join("boot"))?.flatten() {
        fs::remove_file(entry.path())?;
    }
    Ok(())
}

/// Takes the modules that the disk needs, and those that they need, named in the order to load them.
fn extract_modules(from: &Path, to: &Path) -> Result<()> {
    let table = fs::read_to_string(from.join("modules.dep")).context("the kernel has no modules.dep")?;
    let mut ordered: Vec<&str> = Vec::new();
    for wanted in DISK_MODULES {
        let is_wanted = |path: &str| {
            path.rsplit('/')
                .next()
                .is_some_and(|n| n.split('.').next() == Some(wanted))
        };
        // What is not in the table is built into the kernel. A row lists what to load last first.
        let row = table
            .lines()
            .filter_map(|row| row.split_once(':'))
            .find(|(path, _)| is_wanted(path));
        let Some((path, needs)) = row else { continue };
        for module in needs.split_whitespace().rev().chain([path]) {
            if !ordered.contains(&module) {
                ordered.push(module);
            }
        }
    }
    for (number, module) in ordered.iter().enumerate() {
        let name = Path::new(module)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let target = to.join(format!("{number:02}-{}", name.trim_end_matches(".xz")));
        if name.ends_with(".xz") {
            let plain = Command::new("xz")
                .arg("-dc")
                .arg(from.join(module))
                .output()
                .context("cannot run xz")?;
            if !plain.status.success() {
                bail!(
                    "cannot unpack {module}: {}",
                    String::from_utf8_lossy(&plain.stderr).trim()
                );
            }
            fs::write(target, plain.stdout)?;
        } else {
            fs::copy(from.join(module), target)?;
        }
    }
    Ok(())
}

/// What a fresh Debian still lacks to boot fast and without questions.
fn settle(root: &Path, disk: Disk) -> Result<()> {
    fs::write(root.join("etc/hostname"), "cgmgr-lab\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost cgmgr-lab\n")?;
    fs::write(root.join("etc/machine-id"), "c0ffee00c0ffee00c0ffee00c0ffee00\n")?;
    fs::write(root.join("etc/fstab"), "")?;
    fs::write(root.join("etc/resolv.conf"), "")?;
    let [masked, disabled] = units(disk);
    for unit in masked {
        let link = root.join("etc/systemd/system").join(unit);
        let _ = fs::remove_file(&link);
        symlink("/dev/null", &link).with_context(|| format!("cannot mask {unit}"))?;
    }
    for unit in disabled {
        let link = root.join("etc/systemd/system").join(unit);
        fs::remove_file(&link).with_context(|| format!("cannot disable {unit}"))?;
    }
    Ok(())
}

fn make_disk(root: &Path, disk: &Path) -> Result<()> {
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-L", "cgmgr-lab", "-m", "0", "-O", "^has_journal", "-d"])
        .arg(root)
        .arg(disk)
        .arg("2G")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .context("cannot run mkfs.ext4")?;
    if !output.status.success() {
        bail!(
            "mkfs.ext4 failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
