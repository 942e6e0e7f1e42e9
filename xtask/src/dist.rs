//! `cargo xtask dist`: what is handed out. Everything goes to `target/dist`:
//!
//! - `tree/`: the program as released, man pages, completions, the schema, the units, the examples, the licences;
//! - `cgmgr-VERSION-ARCH-linux.tar.gz`: the same as an archive, byte for byte alike for the same commit and compiler;
//! - `cgmgr_VERSION-1_amd64.deb`, by cargo-deb. It packs the tree and builds nothing itself (`--no-build`): the program
//!   is linked with this workspace's own settings, and one program is in both;
//! - `SHA256SUMS`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap_complete::Shell;

use crate::pages::{self, Page};
use crate::{cache, cargo, packages, say};

/// The version of cargo-deb; another one may arrange the package differently.
const CARGO_DEB: &str = "3.8.0";

/// The program is to be smaller, in bytes (docs/speed.md has what takes how much).
const PROGRAM: usize = 3_000_000;

/// Of the package itself, beside the program's version.
const REVISION: &str = "1";

/// Makes everything and checks it.
pub fn run() -> Result<ExitCode> {
    let stage = Stage::new()?;
    stage.check_pages()?;
    let made = [stage.archive()?, stage.deb()?];
    lintian(&made[1])?;
    let sums = stage.dir.join("SHA256SUMS");
    let names = made.iter().filter_map(|path| path.file_name());
    fs::write(
        &sums,
        output(Command::new("sha256sum").args(names).current_dir(&stage.dir))?,
    )?;
    for path in made.iter().chain([&sums]) {
        say::say(path.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// The package alone, for tests: what is in it, since the next run takes the file away.
pub fn deb() -> Result<Vec<u8>> {
    let stage = Stage::new()?;
    let path = stage.deb()?;
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// `target/dist`, with the tree in it.
struct Stage {
    dir: PathBuf,
    tree: PathBuf,
    /// Seconds since 1970: the time of every file.
    time: String,
    /// Against other runs, which would empty the folder.
    _lock: File,
}

impl Stage {
    /// Builds the program and lays the tree out anew.
    fn new() -> Result<Stage> {
        let lock = cache::lock("dist")?;
        let dir = cargo::root().join("target/dist");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        let stage = Stage {
            tree: dir.join("tree"),
            dir,
            time: time()?,
            _lock: lock,
        };
        let program = say::step("building the program as released", || cargo::cgmgr(true))?;
        let program = fs::read(program)?;
        say::say(format!("the program has {} bytes", program.len()));
        anyhow::ensure!(
            program.len() < PROGRAM,
            "the program as released has {} bytes, and is to have less than {PROGRAM}\nhelp: docs/speed.md says what takes how much, \
             and what was done about it",
            program.len()
        );
        stage.put("bin/cgmgr", &program, 0o755)?;
        stage.pages()?;
        stage.texts()?;
        Ok(stage)
    }

    fn pages(&self) -> Result<()> {
        for page in pages::manual(&self.date("+%Y-%m-%d")?)? {
            let section = page.name.rsplit('.').next().unwrap_or_default();
            let path = format!("share/man/man{section}/{}.gz", page.name);
            self.put(&path, &gzip(page.text.as_bytes())?, 0o644)?;
        }
        for (shell, page) in pages::completions()? {
            let folder = match shell {
                Shell::Bash => "bash-completion/completions",
                Shell::Zsh => "zsh/site-functions",
                _ => "fish/vendor_completions.d",
            };
            self.put(
                &format!("share/{folder}/{}", page.name),
                page.text.as_bytes(),
                0o644,
            )?;
        }
        Ok(())
    }

    fn texts(&self) -> Result<()> {
        let root = cargo::root();
        let doc = "share/doc/cgmgr";
        self.put(
            "share/cgmgr/role.schema.json",
            format!("{:#}\n", cgmgr::role::schema()).as_bytes(),
            0o644,
        )?;
        for name in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            self.put(&format!("{doc}/{name}"), &fs::read(root.join(name))?, 0o644)?;
        }
        self.put(
            &format!("{doc}/changelog.gz"),
            &gzip(&fs::read(root.join("CHANGELOG.md"))?)?,
            0o644,
        )?;
        for folder in ["examples", "systemd"] {
            for entry in fs::read_dir(root.join(folder))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                self.put(&format!("{doc}/{folder}/{name}"), &fs::read(&path)?, 0o644)?;
            }
        }
        Ok(())
    }

    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        write(&self.tree.join(path), content, mode)
    }

    /// The time of the files, in a form of date(1)'s.
    fn date(&self, form: &str) -> Result<String> {
        let text = output(
            Command::new("date")
                .args(["-u", "-d", &format!("@{}", self.time), form])
                .env("LC_ALL", "C"),
        )?;
        Ok(text.trim_end().to_owned())
    }

    fn archive(&self) -> Result<PathBuf> {
        let name = format!("cgmgr-{}-{}-linux", pages::version(), std::env::consts::ARCH);
        // No folders: unpacked over /usr/local, they would change those that are there.
        let mut files = Vec::new();
        list(&self.tree, &mut files)?;
        files.sort();
        let tar = Command::new("tar")
            .args([
                "--create",
                "--format=gnu",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
            ])
            .arg(format!("--mtime=@{}", self.time))
            .arg(format!("--transform=s,^,{name}/,"))
            .arg("--directory")
            .arg(&self.tree)
            .args(files.iter().filter_map(|file| file.strip_prefix(&self.tree).ok()))
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run tar")?;
        if !tar.status.success() {
            bail!("tar: {}", tar.status);
        }
        let path = self.dir.join(format!("{name}.tar.gz"));
        write(&path, &gzip(&tar.stdout)?, 0o644)?;
        Ok(path)
    }

    fn deb(&self) -> Result<PathBuf> {
        let changes = format!(
            "cgmgr ({}-{REVISION}) unstable; urgency=medium\n\n  * What has changed in the program is in changelog.gz.\n\n -- {}  {}\n",
            pages::version(),
            maintainer()?,
            self.date("-R")?
        );
        write(
            &self.dir.join("debian/changelog.Debian.gz"),
            &gzip(changes.as_bytes())?,
            0o644,
        )?;
        let mut copyright = fs::read_to_string(cargo::root().join("packaging/debian/copyright"))?;
        copyright.push_str(&licence()?);
        write(&self.dir.join("debian/copyright"), copyright.as_bytes(), 0o644)?;

        let program = cargo_deb()?;
        let path = self
            .dir
            .join(format!("cgmgr_{}-{REVISION}_amd64.deb", pages::version()));
        packages::ensure_these(&[("xz", "xz-utils")])?;
        let status = Command::new(program)
            .args([
                "--package",
                "cgmgr",
                "--no-build",
                "--no-strip",
                "--no-dbgsym",
                "--deb-revision",
                REVISION,
            ])
            .arg("--output")
            .arg(&path)
            .env("SOURCE_DATE_EPOCH", &self.time)
            .current_dir(cargo::root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run cargo-deb")?;
        if !status.success() || !path.is_file() {
            bail!("cargo-deb made no {}: {status}", path.display());
        }
        Ok(path)
    }

    /// What man and the shells have to say about the pages and the completions.
    fn check_pages(&self) -> Result<()> {
        packages::ensure_these(&[("groff", "groff-base"), ("zsh", "zsh"), ("fish", "fish")])?;
        for page in pages::manual("2026-01-31")? {
            let mut groff = Command::new("groff");
            quiet(
                groff.args(["-man", "-ww", "-rCHECKSTYLE=2", "-K", "utf8", "-T", "utf8", "-z"]),
                &page,
            )?;
        }
        for (shell, page) in pages::completions()? {
            quiet(Command::new(shell.to_string()).arg("-n"), &page)?;
        }
        Ok(())
    }
}

/// Has a program read a page; whatever it says of it is a mistake.
fn quiet(command: &mut Command, page: &Page) -> Result<()> {
    let scratch = cache::scratch(&cache::subdir(&cache::dir()?, "runs")?)?;
    let path = scratch.path().join(&page.name);
    fs::write(&path, &page.text)?;
    let found = command
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    if !found.status.success() || !said.trim().is_empty() {
        bail!(
            "{} of {}: {}",
            command.get_program().display(),
            page.name,
            said.trim()
        );
    }
    Ok(())
}

/// Shows what lintian has to say, and fails on its errors.
fn lintian(deb: &Path) -> Result<()> {
    packages::ensure_these(&[("lintian", "lintian")])?;
    let status = say::step("lintian", || {
        Command::new("lintian")
            .args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"])
            .arg(deb)
            .stdin(Stdio::null())
            .status()
            .context("cannot run lintian")
    })?;
    if !status.success() {
        bail!("lintian finds errors in {}", deb.display());
    }
    Ok(())
}

/// cargo-deb, built once and kept in the cache.
fn cargo_deb() -> Result<PathBuf> {
    let tools = cache::subdir(&cache::dir()?, "tools")?;
    let root = tools.join(format!("cargo-deb-{CARGO_DEB}"));
    let program = root.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    let _lock = cache::lock("cargo-deb")?;
    if program.is_file() {
        return Ok(program);
    }
    say::step(&format!("building cargo-deb {CARGO_DEB} (once)"), || {
        // Not in the workspace, whose settings are for its own programs. xz is run and not linked.
        let output = cargo::command()
            .args([
                "install",
                "cargo-deb",
                "--locked",
                "--no-default-features",
                "--version",
                CARGO_DEB,
            ])
            .arg("--root")
            .arg(&root)
            .current_dir(&tools)
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!(
                "cargo install cargo-deb failed:\n{}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(())
    })?;
    Ok(program)
}

/// When the commit was made, which is what every file is dated.
fn time() -> Result<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let text = output(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(cargo::root()),
    )
    .context("when was this version made?\nhelp: outside a git checkout, set SOURCE_DATE_EPOCH")?;
    Ok(text.trim_end().to_owned())
}

/// Who looks after the package, as Cargo.toml has it for cargo-deb.
fn maintainer() -> Result<String> {
    let text = fs::read_to_string(cargo::root().join("Cargo.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("maintainer = "));
    Ok(line
        .context("Cargo.toml names no maintainer")?
        .trim_matches('"')
        .to_owned())
}

/// The fields of Debian's copyright file that are said in the licences already.
fn licence() -> Result<String> {
    let mit = fs::read_to_string(cargo::root().join("LICENSE-MIT"))?;
    let owner = mit.lines().find(|line| line.starts_with("Copyright"));
    let owner = owner.context("LICENSE-MIT names no owner")?;
    let mut text = format!(
        "Copyright: {}\nLicense: Expat or Apache-2.0\n\nLicense: Expat\n",
        owner
            .trim_start_matches("Copyright")
            .trim_start_matches(" (c)")
            .trim()
    );
    for line in mit.lines().skip_while(|line| !line.starts_with("Permission")) {
        text.push_str(if line.is_empty() { " ." } else { " " });
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\nLicense: Apache-2.0\n On Debian systems, its full text is in /usr/share/common-licenses/Apache-2.0.\n");
    Ok(text)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Every file below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Compressed without a time or a name in it.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .arg("-9n")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let mut stdin = child.stdin.take().context("it has a standard input")?;
    let output = std::thread::scope(|scope| {
        // Both at once: it writes before it has read everything.
        scope.spawn(move || stdin.write_all(content));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("gzip: {}", output.status);
    }
    Ok(output.stdout)
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    if !output.status.success() {
        bail!("{}: {}", name.display(), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
