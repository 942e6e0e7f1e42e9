//! `adopt` and systemd's units: what it takes a process out of.

use std::process::Command;

use crate::cgmgr::{cgmgr, finish, until};
use crate::lab::{Lab, path_of, procs, read};

fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().expect("systemctl");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_main_process_of_a_service_stays_and_what_it_started_may_go() {
    let lab = Lab::new();
    let script = "sleep 1000 & wait";
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--unit=adoptee.service", "sh", "-c", script]);
    finish(&mut run).expect(0);
    let group = "/sys/fs/cgroup/system.slice/adoptee.service";
    until("both run", || procs(group).len() == 2);
    let main = systemctl(&["show", "--property=MainPID", "--value", "adoptee.service"]);
    let child = procs(group)
        .into_iter()
        .map(|pid| pid.to_string())
        .find(|pid| *pid != main);
    let child = child.expect("a child");
    until("it is the command", || {
        read(&format!("/proc/{child}/comm")) == "sleep"
    });

    let done = cgmgr(&["adopt", "--name", "part", &main, &child]).expect(1);
    done.says("the main process of adoptee.service")
        .says("systemctl edit adoptee.service");
    assert_eq!(procs(group).len(), 2);

    let done = cgmgr(&["adopt", "--name", "part", "--children-of", &main]).expect(0);
    done.says("systemd does not count them to adoptee.service any more");
    assert_eq!(procs(&path_of("part")).len(), 1);
    assert_eq!(systemctl(&["is-active", "adoptee.service"]), "active");
    cgmgr(&["kill", "part"]).expect(0);
    until("the service has ended", || {
        systemctl(&["is-active", "adoptee.service"]) == "inactive"
    });
    drop(lab);
}
