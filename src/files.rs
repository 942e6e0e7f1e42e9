//! Role files, and the host's policy, on disk: opens them so that no path, whatever it leads to, can hang or flood the program.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags};

use crate::host::Machine;
use crate::role::{self, Diagnostic, HostPolicy, Inputs, LoadError, Overrides, Resolved, Source};

/// The largest role file, in bytes: 1 MiB. Nobody writes more limits than that.
pub const LARGEST: u64 = 1 << 20;

/// Where an operator puts the host's policy. Without the file everything is allowed.
pub const POLICY_PLACE: &str = "/etc/cgmgr/host.toml";

/// What is read, for messages: what it is, and how one is called.
type What = (&'static str, &'static str);

const ROLE: What = ("role file", "rust.role.toml");
const POLICY: What = ("host policy", "/etc/cgmgr/host.toml");

/// Reads a role file and gives it its meaning; `-` is standard input. The outer error is about a file that could not be
/// read at all, the inner ones about what is in it.
pub fn resolve(
    path: &Path,
    machine: &Machine,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Resolved, Box<Diagnostic>> {
    let source = read(path)?;
    Ok(with(machine, overrides, env, |inputs| {
        role::resolve(source, inputs)
    }))
}

/// What the meaning of a role without flags depends on, with this process's own environment.
pub fn with_inputs<T>(machine: &Machine, then: impl FnOnce(&Inputs<'_>) -> T) -> T {
    with(machine, &Overrides::default(), &env, then)
}

fn with<T>(
    machine: &Machine,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
    then: impl FnOnce(&Inputs<'_>) -> T,
) -> T {
    let load = |path: &Path| read_file(path, ROLE);
    then(&Inputs {
        machine,
        env,
        load: &load,
        overrides,
    })
}

/// A variable of cgmgr's own environment, for [`resolve`]. One that is not Unicode counts as unset.
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads a host's policy. None: there is no such file. The error names the path, what is wrong and what to do.
pub fn read_policy(path: &Path) -> Result<Option<Source>, Box<Diagnostic>> {
    let file = match open(path) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => Err(cannot_open(errno.into(), POLICY)),
        Ok(file) => read_opened(file, POLICY),
    };
    match file {
        Ok(text) => Ok(Some(Source {
            path: path.into(),
            text,
        })),
        Err(error) => Err(Box::new(Diagnostic::about_file(path, error.message, error.help))),
    }
}

/// The host's policy in force: of the file that was named, else of the usual place. None: there is none. A file that was
/// named has to be there.
///
/// # Errors
///
/// All that is wrong with it. What an operator meant to forbid is then not known, so that nothing may go on.
pub fn policy(named: Option<&Path>, machine: &Machine) -> Result<Option<HostPolicy>, Vec<Diagnostic>> {
    let path = named.unwrap_or(Path::new(POLICY_PLACE));
    match read_policy(path) {
        Err(unreadable) => Err(vec![*unreadable]),
        Ok(Some(source)) => HostPolicy::parse(source, machine).map(Some),
        Ok(None) if named.is_none() => Ok(None),
        Ok(None) => Err(vec![Diagnostic::about_file(
            path,
            "there is no such file",
            Some(format!("check the path; the usual place is {POLICY_PLACE}")),
        )]),
    }
}

/// Reads a role file, or standard input for `-`. The error names the path, what is wrong and what to do.
pub fn read(path: &Path) -> Result<Source, Box<Diagnostic>> {
    let text = if path == Path::new("-") {
        read_all(io::stdin().lock(), 0, ROLE)
    } else {
        read_file(path, ROLE)
    };
    match text {
        Ok(text) => Ok(Source {
            path: path.into(),
            text,
        }),
        Err(error) => Err(Box::new(Diagnostic::about_file(path, error.message, error.help))),
    }
}

fn read_file(path: &Path, what: What) -> Result<String, LoadError> {
    let file = open(path).map_err(|error| cannot_open(error.into(), what))?;
    read_opened(file, what)
}

/// A FIFO would block the open and a terminal would become the controlling one, unless the flags say otherwise.
fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Reads a regular file. What has been opened is looked at, not its name, which can change in between.
fn read_opened(file: OwnedFd, what: What) -> Result<String, LoadError> {
    let stat = rustix::fs::fstat(&file).map_err(|error| cannot_read(&error.into()))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a FIFO"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Socket => Some("a socket"),
        _ => Some("something else"),
    };
    if let Some(kind) = kind {
        return Err(refuse(
            format!("not a {} but {kind}", what.0),
            &format!("name a regular file, e.g. {}", what.1),
        ));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > LARGEST {
        return Err(too_large(&format!("{size} bytes"), what));
    }
    read_all(File::from(file), size, what)
}

/// Reads to the end, and not beyond the largest role file. There are probably `size` bytes.
fn read_all(from: impl Read, size: u64, what: What) -> Result<String, LoadError> {
    // With room for one more the end is found without a buffer of its own.
    let mut bytes = Vec::with_capacity(size as usize + 1);
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot_read(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large("more than 1 MiB", what));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let message = format!("not UTF-8: the byte at offset {at} is 0x{byte:02x}");
        refuse(
            message,
            &format!("a {} is plain UTF-8 text: save it as such", what.0),
        )
    })
}

fn cannot_open(error: io::Error, what: What) -> LoadError {
    match error.kind() {
        io::ErrorKind::NotFound => refuse("there is no such file", "check the path"),
        io::ErrorKind::PermissionDenied => refuse(
            "no permission to read it",
            "make it readable for you, or run as a user who may read it",
        ),
        // ENXIO: a socket, or a device that has no driver.
        _ if error.raw_os_error() == Some(libc::ENXIO) => refuse(
            format!("not a {} but a socket or a device", what.0),
            &format!("name a regular file, e.g. {}", what.1),
        ),
        _ => LoadError {
            message: format!("cannot open it: {error}"),
            help: None,
        },
    }
}

fn cannot_read(error: &io::Error) -> LoadError {
    LoadError {
        message: format!("cannot read it: {error}"),
        help: None,
    }
}

fn too_large(size: &str, what: What) -> LoadError {
    refuse(
        format!("{size} is too large for a {}", what.0),
        &format!("a {} has at most 1 MiB: is it the right file?", what.0),
    )
}

fn refuse(message: impl Into<String>, help: &str) -> LoadError {
    LoadError {
        message: message.into(),
        help: Some(help.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    /// A directory of this test's own that goes away with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("cgmgr-role-file-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a directory for the test");
            Dir(dir)
        }

        fn file(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).expect("a file for the test");
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn why(path: &Path) -> String {
        let diagnostic = read(path).expect_err("this cannot be a role file");
        assert_eq!(diagnostic.path.as_deref(), Some(path));
        diagnostic.message
    }

    #[test]
    fn refuses_what_is_no_file() {
        let dir = Dir::new("kinds");
        let fifo = dir.0.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let socket = dir.0.join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        assert_eq!(why(&dir.0), "not a role file but a directory");
        assert_eq!(why(&fifo), "not a role file but a FIFO");
        assert_eq!(why(&socket), "not a role file but a socket or a device");
        assert_eq!(why(Path::new("/dev/zero")), "not a role file but a device");
        assert_eq!(why(&dir.0.join("none")), "there is no such file");
    }

    #[test]
    fn refuses_a_large_file_without_reading_it() {
        let dir = Dir::new("large");
        let path = dir.file("large.toml", b"");
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(200 << 20))
            .expect("a sparse file");
        assert_eq!(why(&path), "209715200 bytes is too large for a role file");
        let just = dir.file("just.toml", &vec![b'#'; LARGEST as usize]);
        assert!(read(&just).is_ok());
        // Says that it is empty, and never ends.
        assert!(read_all(io::repeat(b'#'), 0, ROLE).is_err());
    }

    #[test]
    fn names_the_byte_that_is_not_utf8() {
        let dir = Dir::new("utf8");
        let path = dir.file("latin1.toml", b"name = \"b\xfcro\"\n");
        assert_eq!(why(&path), "not UTF-8: the byte at offset 9 is 0xfc");
    }

    #[test]
    fn inherits_relative_to_the_file() {
        let dir = Dir::new("extends");
        dir.file("base.toml", b"[runtime.limits]\npids = 64\n");
        let path = dir.file("rust.role.toml", b"[role]\nextends = \"base.toml\"\n");
        let machine = Machine::plain(1 << 34);
        let resolved = resolve(&path, &machine, &Overrides::default(), &|_| None).expect("a readable file");
        let (role, warnings) = resolved.expect("a good role");
        assert_eq!(
            (role.name.as_str(), role.declared(), warnings.len()),
            ("rust", 1, 0)
        );
        assert_eq!(role.inherits, [dir.0.join("base.toml")]);
    }
}
