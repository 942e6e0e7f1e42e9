//! The kernel log's account of an OOM kill: who was killed, for which group's limit.
//!
//! `Killed process PID` is printed for every victim; the `oom-kill:constraint=…` line, which names the groups, is
//! rate-limited (mm/oom_kill.c, `oom_rs`). So a victim is known for certain by the second line or by its pid, and
//! otherwise it is not known.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A process that the OOM killer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its pid.
    pub pid: i32,
    /// Its name, escaped for printing.
    pub comm: String,
    /// Resident memory it held, in bytes: anonymous, file-backed and shared.
    pub rss: u64,
    /// The part of it that the kernel could not simply drop, in bytes: anonymous and shared.
    pub anon: u64,
    /// Its `oom_score_adj`, where the log says it.
    pub oom_score_adj: Option<i32>,
    /// How often the log named it again: the kernel kills the process it chose once more when it kills the rest of a
    /// group (memory.oom.group), and counts it again too.
    #[serde(skip)]
    pub repeats: u64,
}

/// One OOM incident as the kernel summed it up (`oom-kill:` line).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// The group whose limit was hit; `None` for the whole machine.
    pub limited: Option<String>,
    /// The group the chosen task was in.
    pub task_group: String,
    /// The chosen task.
    pub pid: i32,
}

/// What a piece of the kernel log says about OOM kills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OomLog {
    /// Every `Killed process` line.
    pub victims: Vec<Victim>,
    /// Every `oom-kill:` line.
    pub incidents: Vec<Incident>,
}

impl OomLog {
    /// Adds a record as /dev/kmsg gives it: "priority,sequence,time,flags;message\n" and continuation lines
    /// (Documentation/ABI/testing/dev-kmsg).
    pub fn add_record(&mut self, record: &[u8]) {
        let text = String::from_utf8_lossy(record);
        if let Some((_, message)) = text.split_once(';') {
            self.add(message.lines().next().unwrap_or(""));
        }
    }

    /// Adds one log message (without its prefix).
    pub fn add(&mut self, message: &str) {
        // `Tasks in GROUP are going to be killed` says where a whole group's victims begin, and nothing says where they
        // end: the next kill, in another group, looks the same. So that line names nobody.
        if let Some(victim) = parse_victim(message) {
            self.add_victim(victim);
        } else if let Some(incident) = parse_incident(message) {
            self.incidents.push(incident);
        }
    }

    /// Forgets the oldest, but for the last so many victims and incidents.
    pub fn forget_but(&mut self, most: usize) {
        self.victims.drain(..self.victims.len().saturating_sub(most));
        self.incidents.drain(..self.incidents.len().saturating_sub(most));
    }

    fn add_victim(&mut self, victim: Victim) {
        match self
            .victims
            .iter_mut()
            .find(|v| v.pid == victim.pid && v.comm == victim.comm)
        {
            Some(known) => known.repeats += 1,
            None => self.victims.push(victim),
        }
    }
}

fn parse_victim(message: &str) -> Option<Victim> {
    // "Memory cgroup out of memory: Killed process 123 (name) total-vm:1kB, anon-rss:2kB, file-rss:3kB,
    //  shmem-rss:4kB, UID:0 pgtables:5kB oom_score_adj:6"
    let (_, rest) = message.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    // comm is chosen by others and may hold `)`: the fields begin at the last ") total-vm:".
    let (comm, fields) = rest.rsplit_once(") total-vm:")?;
    let field = |name: &str| {
        let (_, value) = fields.split_once(name)?;
        value
            .split(|c: char| !c.is_ascii_digit() && c != '-')
            .next()?
            .parse::<i64>()
            .ok()
    };
    let kib = |name: &str| field(name).and_then(|v| u64::try_from(v).ok()).unwrap_or(0);
    // Whoever may write to /dev/kmsg can put any numbers there.
    let anon = kib("anon-rss:").saturating_add(kib("shmem-rss:"));
    Some(Victim {
        pid: pid.parse().ok()?,
        comm: crate::text::escape(comm),
        anon: anon.saturating_mul(1024),
        rss: anon.saturating_add(kib("file-rss:")).saturating_mul(1024),
        oom_score_adj: field("oom_score_adj:").and_then(|v| i32::try_from(v).ok()),
        repeats: 0,
    })
}

fn parse_incident(message: &str) -> Option<Incident> {
    // "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a/b,
    //  task_memcg=/a/b/c,task=name,pid=123,uid=0"; a global one has ",global_oom," in place of oom_memcg.
    let (_, rest) = message.split_once("oom-kill:constraint=")?;
    let group_of = |name: &str| {
        let (_, value) = rest.split_once(name)?;
        // A group's name may hold a comma; what follows it is fixed.
        let end = [",task_memcg=", ",task="]
            .iter()
            .filter_map(|next| value.find(next))
            .min()?;
        Some(value[..end].to_owned())
    };
    let (_, pid) = rest.rsplit_once(",pid=")?;
    Some(Incident {
        limited: group_of(",oom_memcg="),
        task_group: group_of(",task_memcg=")?,
        pid: pid.split(',').next()?.parse().ok()?,
    })
}

/// The kernel log from one moment on.
#[derive(Debug)]
pub struct KernelLog {
    fd: OwnedFd,
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl KernelLog {
    /// Opens /dev/kmsg at its end. `Err` where this process may not read it (`kernel.dmesg_restrict`, containers).
    pub fn open_at_end() -> Result<Self, Errno> {
        let fd = rustix::fs::open(
            "/dev/kmsg",
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))?;
        Ok(Self { fd })
    }

    /// Waits until there is more of it, at most so long.
    pub fn wait(&self, at_most: Duration) {
        let limit = Timespec {
            tv_sec: at_most.as_secs() as i64,
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&limit));
    }

    /// Everything said about OOM kills since the last call.
    pub fn read_on(&mut self, log: &mut OomLog) {
        // One read is one record; the kernel refuses a buffer that is too small for it (EINVAL).
        let mut record = [0u8; 8192];
        loop {
            match rustix::io::read(self.fd.as_fd(), &mut record) {
                Ok(0) => return,
                Ok(n) => log.add_record(&record[..n]),
                // EPIPE: records were overwritten before they were read; the next read goes on behind the gap.
                Err(Errno::INTR | Errno::PIPE) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_with_everything() {
        let mut log = OomLog::default();
        log.add(
            "Memory cgroup out of memory: Killed process 4121 (ru)st c) total-vm:100kB, anon-rss:10240kB, \
             file-rss:2kB, shmem-rss:0kB, UID:0 pgtables:60kB oom_score_adj:-17",
        );
        let victim = Victim {
            pid: 4121,
            comm: "ru)st c".into(),
            rss: 10242 * 1024,
            anon: 10240 * 1024,
            oom_score_adj: Some(-17),
            repeats: 0,
        };
        assert_eq!(log.victims, [victim]);
    }

    #[test]
    fn numbers_that_no_machine_has_do_not_overflow() {
        let n = i64::MAX;
        let mut log = OomLog::default();
        log.add(&format!(
            "Killed process 1 (p) total-vm:1kB, anon-rss:{n}kB, file-rss:{n}kB, shmem-rss:{n}kB"
        ));
        assert_eq!((log.victims[0].anon, log.victims[0].rss), (u64::MAX, u64::MAX));
    }

    #[test]
    fn the_one_that_was_chosen_is_named_again_with_its_group() {
        let mut log = OomLog::default();
        let killed =
            |pid| format!("Memory cgroup out of memory: Killed process {pid} (p) total-vm:1kB, anon-rss:1kB");
        log.add("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/w/s,task_memcg=/w/s,task=p,pid=1,uid=0");
        log.add(&killed(1));
        log.add("Tasks in /w/s are going to be killed due to memory.oom.group set");
        log.add(&killed(1));
        log.add(&killed(2));
        // Of another group, and the line that says so was held back: it is rate-limited.
        log.add(&killed(3));
        let seen: Vec<_> = log.victims.iter().map(|v| (v.pid, v.repeats)).collect();
        assert_eq!(seen, [(1, 1), (2, 0), (3, 0)]);
    }

    #[test]
    fn incidents_of_a_group_and_of_the_machine() {
        let mut log = OomLog::default();
        log.add(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/w/cgmgr-a,\
             task_memcg=/w/cgmgr-a/x,task=hog,pid=77,uid=0",
        );
        log.add(
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
             task_memcg=/w/cgmgr-b,task=hog,pid=78,uid=0",
        );
        assert_eq!(
            log.incidents,
            [
                Incident {
                    limited: Some("/w/cgmgr-a".into()),
                    task_group: "/w/cgmgr-a/x".into(),
                    pid: 77
                },
                Incident {
                    limited: None,
                    task_group: "/w/cgmgr-b".into(),
                    pid: 78
                },
            ]
        );
    }

    #[test]
    fn mangled_lines_never_panic() {
        let mut log = OomLog::default();
        for line in [
            "",
            "Killed process ",
            "Killed process x (",
            "Killed process 1 () total-vm:",
            "oom-kill:constraint=",
        ] {
            log.add(line);
        }
        assert_eq!(log.incidents, []);
    }
}
