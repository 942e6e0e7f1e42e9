//! cgmgr's units for a systemd machine: what they say, and what of it is on the disk.
//!
//! What is not cgmgr's is never overwritten and never removed. A change that fails is taken back.

use crate::host::DAEMON_UNIT;
use crate::order;
use crate::plan::drop_in::{FILE, INSTALLED};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where units of the machine go.
const UNIT_DIR: &str = "etc/systemd/system";
/// Where others may have put units of the same name (systemd.unit(5), "Unit File Load Path").
const OTHER_DIRS: [&str; 3] = [
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];
/// The same for units of a user's manager.
const OTHER_DIRS_OF_USERS: [&str; 4] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
];
/// What the journal's entries mean (<https://systemd.io/CATALOG>), where a package has it and where it goes otherwise.
const PACKAGED_CATALOG: &str = "usr/lib/systemd/catalog/cgmgr.catalog";
const CATALOG: &str = "usr/local/lib/systemd/catalog/cgmgr.catalog";
const SERVICE: &str = "cgmgr-sessions.service";
/// What stands for the program in the unit file.
const PROGRAM: &str = "@BINDIR@/cgmgr";

const SLICES: [(&str, &str); 2] = [
    ("agent.slice", include_str!("../../systemd/agent.slice")),
    ("workloads.slice", include_str!("../../systemd/workloads.slice")),
];

/// Where the units of one manager are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Where cgmgr's go.
    path: PathBuf,
    /// The same as the manager sees it: an image's root is not yet the root.
    seen: PathBuf,
    /// Where others may have put units of the same name.
    others: Vec<PathBuf>,
    service: &'static str,
    /// Below which target the services are started.
    target: &'static str,
    /// The root directory of the machine that the daemon and its catalog are for; none where there is to be no daemon.
    daemon: Option<PathBuf>,
}

impl Folder {
    /// The machine's, whose root directory is `root`.
    pub fn of_machine(root: &Path) -> Self {
        Self {
            path: root.join(UNIT_DIR),
            seen: Path::new("/").join(UNIT_DIR),
            others: OTHER_DIRS.iter().map(|directory| root.join(directory)).collect(),
            service: include_str!("../../systemd/cgmgr-sessions.service"),
            target: "multi-user.target",
            daemon: Some(root.to_owned()),
        }
    }

    /// The same without the daemon: one that is there stays.
    pub fn without_daemon(self) -> Self {
        Self { daemon: None, ..self }
    }

    /// A user's, whose configuration is in `config` (`$XDG_CONFIG_HOME`).
    pub fn of_user(config: &Path) -> Self {
        let path = config.join("systemd/user");
        Self {
            seen: path.clone(),
            path,
            others: OTHER_DIRS_OF_USERS.iter().map(PathBuf::from).collect(),
            service: include_str!("../../systemd/cgmgr-sessions.user.service"),
            target: "default.target",
            daemon: None,
        }
    }

    /// Units, and what they say.
    fn units(&self) -> Vec<(&'static str, &'static str)> {
        let mut units = vec![SLICES[0], SLICES[1], (SERVICE, self.service)];
        units.extend(
            self.daemon
                .iter()
                .map(|_| (DAEMON_UNIT, include_str!("../../systemd/cgmgr.service"))),
        );
        units
    }

    /// The links that start the services, and what they say.
    fn links(&self) -> Vec<(PathBuf, PathBuf)> {
        let wants = self.path.join(format!("{}.wants", self.target));
        let services = [SERVICE]
            .into_iter()
            .chain(self.daemon.iter().map(|_| DAEMON_UNIT));
        services
            .map(|service| (wants.join(service), self.seen.join(service)))
            .collect()
    }

    /// The catalog, where it is to be and no package has it.
    fn catalog(&self) -> Result<Option<PathBuf>, UnitsError> {
        let Some(root) = &self.daemon else {
            return Ok(None);
        };
        let is_packaged = look(&root.join(PACKAGED_CATALOG))? != Content::Absent;
        Ok((!is_packaged).then(|| root.join(CATALOG)))
    }

    fn drop_in(&self, unit: &str) -> PathBuf {
        self.path.join(format!("{unit}.d")).join(FILE)
    }

    /// Whether the daemon is to be installed.
    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether a unit is there as a file. What systemd makes of it only systemd knows.
    pub fn has(&self, unit: &str) -> bool {
        let mut all = std::iter::once(&self.path).chain(&self.others);
        all.any(|directory| fs::symlink_metadata(directory.join(unit)).is_ok())
    }

    fn is_ours(&self, content: &Content) -> bool {
        match content {
            Content::Absent => false,
            Content::File(text) => text.starts_with(INSTALLED),
            Content::Link(target) => [SERVICE, DAEMON_UNIT].iter().any(|service| {
                *target == self.seen.join(service) || *target == Path::new("..").join(service)
            }),
        }
    }

    /// Units that have a drop-in of cgmgr's.
    fn changed_units(&self) -> Result<Vec<String>, UnitsError> {
        let mut units = Vec::new();
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(unit) = name.to_str().and_then(|name| name.strip_suffix(".d")) else {
                continue;
            };
            // Somebody may keep a directory or a link of that name there: then it is not cgmgr's.
            if let Ok(found) = look(&self.drop_in(unit))
                && self.is_ours(&found)
            {
                units.push(unit.to_owned());
            }
        }
        order::sort(&mut units);
        Ok(units)
    }
}

/// A unit's drop-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// The unit.
    pub unit: String,
    /// Its text.
    pub text: String,
}

/// What a path is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Absent,
    /// A file with this text.
    File(String),
    /// A symbolic link to this.
    Link(PathBuf),
}

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What it is now.
    pub before: Content,
    /// What it becomes.
    pub after: Content,
}

impl Change {
    /// `write`, `link` or `remove`.
    pub fn verb(&self) -> &'static str {
        match self.after {
            Content::Absent => "remove",
            Content::File(_) => "write",
            Content::Link(_) => "link",
        }
    }

    fn undo(&self) -> Self {
        Self {
            path: self.path.clone(),
            before: self.after.clone(),
            after: self.before.clone(),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug)]
pub struct UnitsError {
    /// What, where and why.
    pub message: String,
    /// One line of remedy.
    pub help: String,
}

impl fmt::Display for UnitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UnitsError {}

fn error<T>(message: String, help: impl Into<String>) -> Result<T, UnitsError> {
    Err(UnitsError {
        message,
        help: help.into(),
    })
}

/// The text of a unit with the program's path in it.
fn text(template: &str, program: &str) -> String {
    template.replace(PROGRAM, program)
}

/// A path as a unit file takes it (systemd.service(5), "Command lines"): `%` and `$` doubled, quoted where needed.
fn as_program(path: &Path) -> Result<String, UnitsError> {
    let help = "put cgmgr where a service can be started from, e.g. /usr/local/bin/cgmgr";
    let shown = crate::text::escape(&path.to_string_lossy());
    let Some(path) = path.to_str() else {
        return error(format!("the path of cgmgr, {shown}, is not UTF-8"), help);
    };
    if path.chars().any(char::is_control) || path.ends_with(" (deleted)") || !path.starts_with('/') {
        return error(format!("cgmgr cannot be started from {shown}"), help);
    }
    let plain = path
        .replace('%', "%%")
        .replace('$', "$$")
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let needs_quotes = plain != path || path.contains([' ', '\'', ';']);
    Ok(if needs_quotes {
        format!("\"{plain}\"")
    } else {
        plain
    })
}

fn look(path: &Path) -> Result<Content, UnitsError> {
    let refused = |e: io::Error| UnitsError {
        message: format!("cannot read {}: {e}", path.display()),
        help: "run as root".into(),
    };
    match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Content::Absent)
        }
        Err(e) => Err(refused(e)),
        Ok(meta) if meta.is_symlink() => Ok(Content::Link(fs::read_link(path).map_err(refused)?)),
        Ok(meta) if !meta.is_file() => error(
            format!("{} is there and is no file", path.display()),
            "move it away; cgmgr never overwrites what it did not install",
        ),
        Ok(_) => Ok(Content::File(
            String::from_utf8_lossy(&fs::read(path).map_err(refused)?).into_owned(),
        )),
    }
}

/// What has to change so that cgmgr's units and these drop-ins are in place, and run `program`. Empty: they are.
pub fn to_install(folder: &Folder, program: &Path, drop_ins: &[DropIn]) -> Result<Vec<Change>, UnitsError> {
    let program = as_program(program)?;
    let mut changes = Vec::new();
    let mut wanted = Vec::new();
    for (name, template) in folder.units() {
        for directory in &folder.others {
            let path = directory.join(name);
            let found = look(&path)?;
            if found != Content::Absent && !folder.is_ours(&found) {
                return foreign(&path);
            }
        }
        wanted.push((folder.path.join(name), Content::File(text(template, &program))));
    }
    for drop_in in drop_ins {
        wanted.push((folder.drop_in(&drop_in.unit), Content::File(drop_in.text.clone())));
    }
    let links = folder.links().into_iter();
    wanted.extend(links.map(|(link, target)| (link, Content::Link(target))));
    if let Some(catalog) = folder.catalog()? {
        wanted.push((
            catalog,
            Content::File(include_str!("../../systemd/cgmgr.catalog").to_owned()),
        ));
    }
    for (path, after) in wanted {
        let before = look(&path)?;
        match &before {
            found if *found == after => continue,
            found if folder.is_ours(found) && matches!(after, Content::Link(_)) => continue,
            Content::Absent => {}
            found if folder.is_ours(found) => {}
            _ => return foreign(&path),
        }
        changes.push(Change { path, before, after });
    }
    Ok(changes)
}

fn foreign<T>(path: &Path) -> Result<T, UnitsError> {
    error(
        format!("{} exists and was not installed by cgmgr", path.display()),
        "move it away, or keep it and do not install; cgmgr never overwrites what it did not install",
    )
}

/// What has to go so that nothing of cgmgr's is left, also not of `also`, which are files that are its own wherever they
/// are. Files of others stay; their names are the second part.
pub fn to_uninstall(folder: &Folder, also: &[String]) -> Result<(Vec<Change>, Vec<PathBuf>), UnitsError> {
    let mut changes = Vec::new();
    let mut foreign = Vec::new();
    let mut paths: Vec<PathBuf> = folder.links().into_iter().map(|(link, _)| link).rev().collect();
    paths.extend(
        folder
            .units()
            .iter()
            .rev()
            .map(|(name, _)| folder.path.join(name)),
    );
    paths.extend(folder.changed_units()?.iter().map(|unit| folder.drop_in(unit)));
    paths.extend(folder.daemon.iter().map(|root| root.join(CATALOG)));
    for path in paths {
        match look(&path)? {
            Content::Absent => {}
            before if folder.is_ours(&before) => changes.push(Change {
                path,
                before,
                after: Content::Absent,
            }),
            _ => foreign.push(path),
        }
    }
    for path in also {
        let path = PathBuf::from(path);
        let before = look(&path)?;
        if before != Content::Absent {
            changes.push(Change {
                path,
                before,
                after: Content::Absent,
            });
        }
    }
    Ok((changes, foreign))
}

/// Whether the catalog is among what was changed, so that the journal has to read it anew.
pub fn touch_catalog(changes: &[Change]) -> bool {
    changes.iter().any(|change| change.path.ends_with(CATALOG))
}

/// Makes the changes. When one fails, those before it are taken back.
pub fn change(changes: &[Change]) -> Result<(), UnitsError> {
    for (done, change) in changes.iter().enumerate() {
        if let Err(e) = one(change) {
            let mut message = format!("cannot {} {}: {e}", change.verb(), change.path.display());
            for left in take_back(&changes[..done]) {
                message.push_str(&format!("; could not undo: {left}"));
            }
            return error(message, "run as root, on a file system that can be written");
        }
    }
    Ok(())
}

/// Takes changes back, the last one first. Returns what could not be.
pub fn take_back(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .rev()
        .filter_map(|change| {
            let e = one(&change.undo()).err()?;
            Some(format!("{}: {e}", change.path.display()))
        })
        .collect()
}

fn one(change: &Change) -> io::Result<()> {
    let directory = change.path.parent().unwrap_or(Path::new("/"));
    if change.after == Content::Absent {
        match fs::remove_file(&change.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Only the directories that are there for one unit's sake; not empty means that others are in it.
        if directory.extension().is_some_and(|e| e == "wants" || e == "d") {
            let _ = fs::remove_dir(directory);
        } else if directory.ends_with("catalog") && fs::remove_dir(directory).is_ok() {
            // Below /usr/local, where nobody else may have anything of systemd's.
            let _ = directory.parent().map(fs::remove_dir);
        }
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let name = change.path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let made = match &change.after {
        Content::File(text) => write(&temporary, text),
        Content::Link(target) => std::os::unix::fs::symlink(target, &temporary),
        Content::Absent => Ok(()),
    };
    let moved = made.and_then(|()| fs::rename(&temporary, &change.path));
    if moved.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    moved
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    // Whatever the umask is: unit files are for everybody to read.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(test: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("cgmgr-units-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        root
    }

    const PROGRAM: &str = "/usr/local/bin/cgmgr";

    fn install(root: &Path, program: &str) -> Result<Vec<Change>, UnitsError> {
        to_install(&Folder::of_machine(root), Path::new(program), &[])
    }

    #[test]
    fn installed_once_then_nothing_to_do_then_gone() {
        let root = root("twice");
        let changes = install(&root, PROGRAM).unwrap();
        assert_eq!(changes.len(), 7);
        change(&changes).unwrap();
        assert!(install(&root, PROGRAM).unwrap().is_empty());
        assert!(root.join(CATALOG).is_file() && touch_catalog(&changes));
        let service = fs::read_to_string(root.join("etc/systemd/system/cgmgr-sessions.service")).unwrap();
        assert!(
            service.contains("\nExecStart=/usr/local/bin/cgmgr anchor\n"),
            "{service}"
        );
        assert!(!service.contains('@'));
        let daemon = fs::read_to_string(root.join("etc/systemd/system/cgmgr.service")).unwrap();
        assert!(
            daemon.contains("\nExecStart=/usr/local/bin/cgmgr daemon\n"),
            "{daemon}"
        );
        assert!(!daemon.contains("@BINDIR@"));
        // Another program: only the services change.
        assert_eq!(install(&root, "/opt/cgmgr").unwrap().len(), 2);
        let (gone, foreign) = to_uninstall(&Folder::of_machine(&root), &[]).unwrap();
        assert_eq!((gone.len(), foreign.len()), (7, 0));
        change(&gone).unwrap();
        assert!(!root.join("usr/local/lib/systemd").exists());
        assert_eq!(fs::read_dir(root.join("etc/systemd/system")).unwrap().count(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn without_the_daemon_one_that_is_there_stays() {
        let root = root("daemon");
        let without = Folder::of_machine(&root).without_daemon();
        let changes = to_install(&without, Path::new(PROGRAM), &[]).unwrap();
        assert_eq!(changes.len(), 4);
        assert!(!touch_catalog(&changes));
        change(&changes).unwrap();
        // A package has the catalog already, and takes it away itself.
        let packaged = root.join(PACKAGED_CATALOG);
        fs::create_dir_all(packaged.parent().unwrap()).unwrap();
        fs::write(&packaged, include_str!("../../systemd/cgmgr.catalog")).unwrap();
        let more = install(&root, PROGRAM).unwrap();
        assert_eq!(more.len(), 2);
        change(&more).unwrap();
        assert!(to_install(&without, Path::new(PROGRAM), &[]).unwrap().is_empty());
        assert!(root.join("etc/systemd/system/cgmgr.service").is_file());
        assert_eq!(to_uninstall(&Folder::of_machine(&root), &[]).unwrap().0.len(), 6);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_refused_and_kept() {
        let root = root("foreign");
        for directory in [UNIT_DIR, "usr/lib/systemd/system"] {
            let path = root.join(directory).join("agent.slice");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "[Slice]\n").unwrap();
            let refused = install(&root, PROGRAM).unwrap_err();
            assert!(refused.message.contains("agent.slice exists"), "{refused}");
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/null", &path).unwrap();
            assert!(install(&root, PROGRAM).is_err(), "masked");
            let (gone, _) = to_uninstall(&Folder::of_machine(&root), &[]).unwrap();
            assert!(gone.is_empty());
            fs::remove_file(&path).unwrap();
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_failure_takes_back_what_was_done() {
        let root = root("undo");
        let mut changes = install(&root, PROGRAM).unwrap();
        // A file where a directory would have to be.
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        changes[4].path = root.join("file/link");
        assert!(change(&changes).unwrap_err().message.contains("cannot link"));
        assert_eq!(fs::read_dir(root.join("etc/systemd/system")).unwrap().count(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn drop_ins_come_and_go_and_those_of_others_stay() {
        let root = root("drop-ins");
        let folder = Folder::of_machine(&root);
        let mine = DropIn {
            unit: "ssh.service".into(),
            text: format!("{INSTALLED}\n[Service]\nSlice=agent.slice\n"),
        };
        let theirs = root.join("etc/systemd/system/other.service.d/40-cgmgr.conf");
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "[Service]\n").unwrap();
        let of_other = DropIn {
            unit: "other.service".into(),
            ..mine.clone()
        };
        let refused = to_install(&folder, Path::new(PROGRAM), std::slice::from_ref(&of_other));
        assert!(
            refused
                .unwrap_err()
                .message
                .contains("other.service.d/40-cgmgr.conf exists")
        );
        change(&to_install(&folder, Path::new(PROGRAM), std::slice::from_ref(&mine)).unwrap()).unwrap();
        // Without being told again it stays.
        assert!(install(&root, PROGRAM).unwrap().is_empty());
        assert!(folder.has("agent.slice") && !folder.has("ssh.service"));
        let (gone, foreign) = to_uninstall(&folder, &[]).unwrap();
        assert_eq!((gone.len(), foreign.len()), (8, 0));
        change(&gone).unwrap();
        let left: Vec<_> = fs::read_dir(root.join(UNIT_DIR))
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(left, ["other.service.d"]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_users_units_are_his_own() {
        let root = root("user");
        let folder = Folder::of_user(&root);
        let changes = to_install(&folder, Path::new(PROGRAM), &[]).unwrap();
        assert_eq!(changes.len(), 4);
        change(&changes).unwrap();
        let link = root.join("systemd/user/default.target.wants/cgmgr-sessions.service");
        assert_eq!(
            fs::read_link(&link).unwrap(),
            root.join("systemd/user/cgmgr-sessions.service")
        );
        let service = fs::read_to_string(&link).unwrap();
        assert!(
            service.contains("\nExecStart=/usr/local/bin/cgmgr anchor --user\n"),
            "{service}"
        );
        change(&to_uninstall(&folder, &[]).unwrap().0).unwrap();
        assert_eq!(fs::read_dir(root.join("systemd/user")).unwrap().count(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_programs_path_in_a_unit_file() {
        let of = |p: &str| as_program(Path::new(p));
        assert_eq!(of("/a/cgmgr").unwrap(), "/a/cgmgr");
        assert_eq!(of("/a b/100%/cg\"m").unwrap(), "\"/a b/100%%/cg\\\"m\"");
        assert!(of("/a\nb").is_err() && of("/a (deleted)").is_err() && of("cgmgr").is_err());
    }
}
