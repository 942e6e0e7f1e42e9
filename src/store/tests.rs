//! Tests on a real file system.

use super::*;
use crate::path::SessionName;
use crate::record::{Applied, Fact};
use std::io::Write;
use std::process::{Command, Stdio};

struct Place(std::path::PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cgmgr-store-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn store(&self) -> Store {
        Store::new(Directory::new(self.0.join("a/b")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(n: u64, padding: usize) -> Record {
    Record {
        time_usec: n,
        session: None,
        id: None,
        role: None,
        fact: Fact::Applied(Applied {
            file: Some("x".repeat(padding)),
            changes: n,
            ..Applied::default()
        }),
    }
}

fn times(store: &Store) -> Vec<u64> {
    store.read().unwrap().map(|r| r.time_usec).collect()
}

#[test]
fn what_was_appended_is_read_in_order() {
    let place = Place::new("order");
    let store = place.store();
    assert!(times(&store).is_empty());
    for n in 1..=3 {
        store.append(&record(n, 0)).unwrap();
    }
    // Another process's.
    place.store().append(&record(4, 0)).unwrap();
    store.append(&record(5, 0)).unwrap();
    assert_eq!(times(&store), [1, 2, 3, 4, 5]);
}

#[test]
fn a_cut_record_harms_no_other() {
    let place = Place::new("cut");
    let store = place.store();
    store.append(&record(1, 0)).unwrap();
    let path = store.directory().join(CURRENT);
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(b"{\"time_usec\":2,\"event\":\"appl").unwrap();
    store.append(&record(3, 0)).unwrap();
    assert_eq!(times(&store), [1, 3]);
    file.write_all(b"{\"time").unwrap();
    let mut reader = store.read().unwrap();
    let read: Vec<Record> = reader.by_ref().collect();
    assert_eq!((read.len(), reader.unreadable), (2, 1));
}

#[test]
fn the_size_is_bounded_and_the_newest_stay() {
    let place = Place::new("bound");
    let (one, other) = (place.store(), place.store());
    let each = 64 << 10;
    let all = 6 * SEGMENT / each;
    for n in 0..all {
        // The other has the file open when it is renamed.
        let store = if n % 2 == 0 { &one } else { &other };
        store.append(&record(n, each as usize)).unwrap();
    }
    let files: Vec<u64> = std::fs::read_dir(one.directory().path())
        .unwrap()
        .flatten()
        .map(|e| e.metadata().unwrap().len())
        .collect();
    assert!(files.len() <= SEGMENTS as usize, "{files:?}");
    assert!(files.iter().sum::<u64>() <= u64::from(SEGMENTS) * (SEGMENT + 3 * each));
    let mut read = times(&one);
    read.sort();
    let kept = read.len() as u64;
    assert!(kept >= 3 * SEGMENT / (each + 200), "{kept}");
    assert_eq!(read, (all - kept..all).collect::<Vec<_>>());
}

#[test]
fn writers_side_by_side_lose_nothing() {
    let place = Place::new("writers");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let place = &place;
            scope.spawn(move || {
                let store = place.store();
                for n in 0..500 {
                    store.append(&record(writer * 1000 + n, 300)).unwrap();
                }
            });
        }
    });
    let mut read = times(&place.store());
    read.sort();
    assert_eq!(read.len(), 2000);
    read.dedup();
    assert_eq!(read.len(), 2000);
}

#[test]
fn a_tail_gives_each_once_across_files() {
    let place = Place::new("tail");
    let store = place.store();
    store.append(&record(0, 0)).unwrap();
    let mut tail = Tail::begin(store.directory()).unwrap();
    assert_eq!(tail.lines(), [""; 0]);
    let mut got = Vec::new();
    for n in 1..200 {
        store.append(&record(n, 64 << 10)).unwrap();
        if n % 3 == 0 {
            got.extend(tail.lines());
        }
    }
    got.extend(tail.lines());
    let time = |line: &String| Record::from_text(line).unwrap().time_usec;
    let got: Vec<u64> = got.iter().map(time).collect();
    assert_eq!(got, (1..200).collect::<Vec<_>>());
    // One who was about to write to the file when it was renamed.
    let old = store.directory().join(&file_name(1));
    let mut old = std::fs::File::options().append(true).open(old).unwrap();
    writeln!(old, "{}", record(200, 0).to_text()).unwrap();
    store.append(&record(201, 0)).unwrap();
    assert_eq!(tail.lines().iter().map(time).collect::<Vec<_>>(), [200, 201]);
}

#[test]
fn who_has_a_file_open_that_was_renamed_goes_on_in_the_new_one() {
    let place = Place::new("renamed");
    let (one, other) = (place.store(), place.store());
    one.append(&record(1, 0)).unwrap();
    other.append(&record(2, SEGMENT as usize)).unwrap();
    one.append(&record(3, 0)).unwrap();
    let text = std::fs::read_to_string(one.directory().join(CURRENT)).unwrap();
    assert_eq!(Record::from_text(text.trim_end()), Some(record(3, 0)));
}

#[test]
fn a_tail_goes_on_where_another_one_ended() {
    let place = Place::new("resume");
    let store = place.store();
    let resumed = |mark| {
        let mut tail = Tail::resume(store.directory(), mark).unwrap();
        let times = tail
            .lines()
            .iter()
            .map(|l| Record::from_text(l).unwrap().time_usec)
            .collect();
        let mark = tail.mark();
        (times, mark.and_then(|mark| Mark::from_text(&mark.to_text())))
    };
    assert_eq!(resumed(None), (Vec::<u64>::new(), None));
    store.append(&record(1, 0)).unwrap();
    let (times, mark) = resumed(None);
    assert_eq!(times, [0; 0]);
    assert!(mark.is_some());
    store.append(&record(2, 0)).unwrap();
    let (times, next) = resumed(mark);
    assert_eq!(times, [2]);
    assert_eq!(resumed(next), (Vec::new(), next));
    // The file that it is in was renamed meanwhile.
    store.append(&record(3, SEGMENT as usize)).unwrap();
    store.append(&record(4, 0)).unwrap();
    assert_eq!(resumed(next).0, [3, 4]);
    // It is there no more.
    std::fs::remove_file(store.directory().join(&file_name(1))).unwrap();
    assert_eq!(resumed(next).0, [0; 0]);
}

#[test]
fn a_tail_hears_of_what_comes_after_its_directory_was_taken_away() {
    let place = Place::new("taken");
    let store = place.store();
    store.append(&record(1, 0)).unwrap();
    let mut tail = Tail::begin(store.directory()).unwrap();
    let only = store.only_daemon().unwrap().unwrap();
    assert!(tail.descriptor().is_some() && only.is_there(store.directory()));
    std::fs::remove_dir_all(store.directory().path()).unwrap();
    assert_eq!(tail.lines(), [""; 0]);
    assert!(tail.descriptor().is_none(), "nothing would wake it");
    assert!(!only.is_there(store.directory()));
    place.store().append(&record(2, 0)).unwrap();
    let lines = tail.lines();
    assert!(
        lines.len() == 1 && lines[0].contains("\"time_usec\":2,"),
        "{lines:?}"
    );
    assert!(place.store().only_daemon().unwrap().is_some());
    assert!(!only.is_there(store.directory()), "it is another one's");
}

#[test]
fn the_next_daemon_knows_how_far_the_last_one_came() {
    let place = Place::new("only");
    let store = place.store();
    let mut only = store.only_daemon().unwrap().unwrap();
    assert!(store.only_daemon().unwrap().is_none());
    assert_eq!(only.mark(), None);
    for (inode, offset) in [(u64::MAX, u64::MAX), (7, 0)] {
        let mark = Mark::from_text(&format!("{inode} {offset}")).unwrap();
        only.set_mark(&mark).unwrap();
        assert_eq!(only.mark(), Some(mark));
    }
    let mark = only.mark();
    drop(only);
    assert_eq!(store.only_daemon().unwrap().unwrap().mark(), mark);
}

#[test]
fn what_is_kept_is_kept_until_it_is_forgotten() {
    let place = Place::new("kept");
    let store = place.store();
    let name = SessionName::new("rust-3").unwrap();
    assert!(!store.kept().has(&name) && store.kept().names().unwrap().is_empty());
    store.kept().keep(&name, &record(7, 0)).unwrap();
    assert!(store.kept().has(&name));
    assert_eq!(store.kept().get(&name), Some(record(7, 0)));
    assert_eq!(store.kept().names().unwrap(), std::slice::from_ref(&name));
    assert!(store.kept().forget(&name).unwrap() && !store.kept().forget(&name).unwrap());
}

#[test]
fn a_directory_that_others_can_write_is_not_used() {
    let place = Place::new("open");
    let store = place.store();
    store.append(&record(1, 0)).unwrap();
    let path = store.directory().path();
    let done = Command::new("chmod")
        .arg("777")
        .arg(path)
        .stdin(Stdio::null())
        .status();
    assert!(done.unwrap().success());
    assert!(store.directory().open().is_err());
}
