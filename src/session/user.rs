//! The user that a session runs as.
//!
//! He is asked for with getent(1) and id(1), not with getpwnam(3): that loads whatever /etc/nsswitch.conf names (LDAP,
//! systemd-homed) into the process, which a statically linked program must not do with libraries of another C library.
//! Where there is no getent, as in small containers, the files in /etc are all there is.

use crate::kernel::sys::Identity;
use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A user that a session runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Ids, supplementary groups included.
    pub identity: Identity,
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: OsString,
    /// Login shell.
    pub shell: OsString,
}

impl User {
    /// Looks a user up by name or by number.
    pub fn find(name: &str) -> Result<Self, String> {
        let shown = crate::text::escape(name);
        let refused = |e: io::Error| format!("cannot look up user `{shown}`: {e}");
        let listed = match ask("getent", &["passwd", "--", name]).map_err(refused)? {
            Some(text) => text,
            None => std::fs::read_to_string(PASSWD).map_err(refused)?,
        };
        let entry = Entry::find(&listed, name).ok_or_else(|| format!("there is no user `{shown}`"))?;
        let refused = |e: io::Error| format!("cannot look up the groups of user `{}`: {e}", entry.name);
        let groups = match ask("id", &["-G", "--", entry.name]).map_err(refused)? {
            Some(text) => text.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
            None => groups_of(&entry, &std::fs::read_to_string(GROUP).map_err(refused)?),
        };
        Ok(Self {
            identity: Identity {
                uid: entry.uid,
                gid: entry.gid,
                groups,
            },
            name: entry.name.into(),
            home: entry.home.into(),
            shell: entry.shell.into(),
        })
    }
}

/// What a program prints; nothing where it fails, `None` where it is not there.
fn ask(program: &str, args: &[&str]) -> io::Result<Option<String>> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl<'a> Entry<'a> {
    /// The one whose name is `wanted`; else the one whose number it is.
    fn find(listed: &'a str, wanted: &str) -> Option<Self> {
        let entries = || listed.lines().filter_map(Self::parse);
        let number = wanted.parse::<u32>().ok();
        entries()
            .find(|e| e.name == wanted)
            .or_else(|| entries().find(|e| Some(e.uid) == number))
    }

    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let _full_name = fields.next()?;
        Some(Self {
            name,
            uid,
            gid,
            home: fields.next()?,
            // passwd(5): an empty field is /bin/sh.
            shell: fields.next().filter(|s| !s.is_empty()).unwrap_or("/bin/sh"),
        })
    }
}

/// The groups of a user in the text of group(5), his primary one first.
fn groups_of(entry: &Entry<'_>, listed: &str) -> Vec<u32> {
    let mut groups = vec![entry.gid];
    for line in listed.lines() {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next().and_then(|gid| gid.parse().ok());
        let members = fields.next().unwrap_or_default();
        if let Some(gid) = gid
            && !groups.contains(&gid)
            && members.split(',').any(|member| member == entry.name)
        {
            groups.push(gid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number() {
        assert_eq!(User::find("root").unwrap().identity.uid, 0);
        let by_number = User::find("0").unwrap();
        assert_eq!(by_number.name, "root");
        assert_eq!(by_number.home, "/root");
        assert!(by_number.identity.groups.contains(&0));
        assert!(User::find("no such user").unwrap_err().contains("no such user"));
        assert!(User::find("--help").unwrap_err().contains("there is no user"));
        assert!(User::find("").is_err());
    }

    #[test]
    fn the_files_in_etc_say_the_same() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\n1000:x:7:7::/odd:/bin/sh\nada:x:1000:100:Ada,,,:/home/ada:\n";
        let of = |wanted| Entry::find(passwd, wanted).map(|e| (e.name, e.uid, e.shell));
        assert_eq!(of("ada"), Some(("ada", 1000, "/bin/sh")));
        assert_eq!(of("0"), Some(("root", 0, "/bin/bash")));
        // A login name that is a number is a name first.
        assert_eq!(of("1000"), Some(("1000", 7, "/bin/sh")));
        assert_eq!(of("eve"), None);
        let ada = Entry::find(passwd, "ada").unwrap();
        let group = "users:x:100:ada\naudio:x:29:eve,ada\nadam:x:30:adam\nempty:x:31:\n";
        assert_eq!(groups_of(&ada, group), [100, 29]);
    }
}
