//! What `doctor` says of a machine, tried by making the machine so: each finding has its name, its level and its remedy.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::cgmgr::{Done, cgmgr, command, finish, until};
use crate::lab::{Lab, MOUNT, is_systemd, read, write};
use crate::people::coder;

/// The findings by name, and whether limits can be enforced.
struct Said {
    findings: BTreeMap<String, Value>,
    enforces: bool,
    all: Value,
}

impl Said {
    #[track_caller]
    fn of(done: Done) -> Said {
        let all = done.json();
        let enforces = all["can_enforce"].as_bool().expect("a verdict");
        assert_eq!(done.status, i32::from(!enforces), "{done:#?}");
        let list = all["findings"].as_array().expect("findings").clone();
        let named = |finding: Value| (finding["id"].as_str().expect("a name").to_owned(), finding);
        let said = Said {
            findings: list.into_iter().map(named).collect(),
            enforces,
            all,
        };
        for (id, finding) in &said.findings {
            let fine = finding["level"] == "ok" || id == "self_test" || id == "container_view";
            assert!(fine || finding["fix"].is_string(), "no remedy: {finding:#}");
        }
        said
    }

    /// A finding of that name and level; what it says.
    #[track_caller]
    fn has(&self, id: &str, level: &str) -> String {
        let finding = self.findings.get(id);
        let finding = finding.unwrap_or_else(|| panic!("no {id} in {:#}", self.all));
        assert_eq!(finding["level"], level, "{finding:#}");
        format!("{} {}", finding["what"], finding["fix"])
    }

    #[track_caller]
    fn has_no(&self, id: &str) {
        assert!(!self.findings.contains_key(id), "{id} in {:#}", self.all);
    }

    /// What becomes of a knob.
    #[track_caller]
    fn knob(&self, key: &str) -> String {
        let all = self.all["knobs"].as_array().expect("knobs");
        let knob = all.iter().find(|k| k["knob"] == key).expect("the knob");
        knob["state"].as_str().expect("a state").to_owned()
    }
}

fn doctor(options: &[&str]) -> Said {
    let mut words = vec!["doctor", "--json"];
    words.extend(options);
    Said::of(cgmgr(&words))
}

/// What it says in a mount namespace of its own after `prepare`.
fn doctor_after(prepare: &str) -> Said {
    let mut inside = std::process::Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]);
    let script = format!("{prepare}\nexec \"$0\" doctor --json");
    let program = crate::lab::must("CGMGR_BIN");
    Said::of(finish(inside.args(["sh", "-ec", &script, &program])))
}

#[test]
fn doctor_says_that_there_is_no_cgroup_file_system() {
    let _lab = Lab::new();
    let said = doctor_after(&format!("umount -l {MOUNT}"));
    assert!(said.has("no_cgroup_fs", "problem").contains("mount -t cgroup2"));
    assert!(!said.enforces && said.knob("memory_max") == "not_enforced");
}

#[test]
fn doctor_says_that_the_mount_is_read_only() {
    let _lab = Lab::new();
    let said = doctor_after(&format!("mount -o remount,bind,ro {MOUNT}"));
    assert!(said.has("read_only", "problem").contains("remount,rw"));
    assert!(!said.enforces);
}

#[test]
fn doctor_says_that_it_sees_a_containers_view() {
    let _lab = Lab::new();
    let group = format!("{MOUNT}/lab-container");
    fs::create_dir(&group).expect("a group");
    // In a cgroup namespace whose root is that group, with a mount of it, and with a /run that hides systemd: as a
    // container sees it.
    let script = format!(
        "mount -t tmpfs none /run
         echo $$ > {group}/cgroup.procs
         exec unshare --cgroup --mount sh -ec 'umount -l {MOUNT}; mount -t cgroup2 none {MOUNT}; exec \"$0\" doctor --json' \"$0\""
    );
    let mut outer = std::process::Command::new("unshare");
    outer.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
    let said = Said::of(finish(outer.arg(crate::lab::must("CGMGR_BIN"))));
    until("the group is empty", || fs::remove_dir(&group).is_ok());
    let told = said.has("container_view", "note");
    assert!(told.contains("limits of groups further out"), "{told}");
}

#[test]
fn doctor_says_that_nothing_is_delegated_to_a_user() {
    let _lab = Lab::new();
    coder();
    let mut inside = std::process::Command::new("setpriv");
    inside.args(["--reuid=1000", "--regid=1000", "--init-groups"]);
    let program = crate::lab::must("CGMGR_BIN");
    let said = Said::of(finish(inside.args([&program, "doctor", "--json"])));
    let id = if is_systemd() {
        "not_delegated"
    } else {
        "not_writable"
    };
    said.has(id, "problem");
    assert!(!said.enforces && said.knob("memory_max") == "not_enforced");
    assert_eq!(said.knob("cpus"), "stood_in_for");
}

#[test]
fn doctor_says_which_controller_is_missing() {
    let _lab = Lab::new();
    let (outer, inner) = (format!("{MOUNT}/lab-few"), format!("{MOUNT}/lab-few/base"));
    write(&format!("{MOUNT}/cgroup.subtree_control"), "+pids +memory");
    fs::create_dir(&outer).expect("a group");
    write(&format!("{outer}/cgroup.subtree_control"), "+pids");
    fs::create_dir(&inner).expect("a group");
    let said = doctor(&["--cgroup-root", "/lab-few/base"]);
    let told = said.has("controllers_missing", "problem");
    assert!(told.contains("memory") && !told.contains("pids"), "{told}");
    assert_eq!(
        (said.knob("memory_max").as_str(), said.knob("pids").as_str()),
        ("not_enforced", "enforced")
    );
    cgmgr(&["--cgroup-root", "/lab-few/base", "down", "--kill"]).expect(0);
    for group in [inner, outer] {
        fs::remove_dir(&group).expect("an empty group goes");
    }
    if !is_systemd() {
        write(&format!("{MOUNT}/cgroup.subtree_control"), "-pids -memory");
    }
}

#[test]
fn doctor_names_the_process_in_the_way() {
    let _lab = Lab::new();
    let group = format!("{MOUNT}/lab-busy");
    write(&format!("{MOUNT}/cgroup.subtree_control"), "+pids +memory");
    fs::create_dir(&group).expect("a group");
    let mut there = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep");
    write(&format!("{group}/cgroup.procs"), &there.id().to_string());
    let said = doctor(&["--cgroup-root", "/lab-busy"]);
    let name = format!("pid {} (sleep)", there.id());
    let told = said
        .findings
        .values()
        .any(|f| f["what"].as_str().is_some_and(|w| w.contains(&name)));
    there.kill().expect("it lives");
    there.wait().expect("a child");
    until("the group is empty", || fs::remove_dir(&group).is_ok());
    if !is_systemd() {
        write(&format!("{MOUNT}/cgroup.subtree_control"), "-pids -memory");
    }
    assert!(told, "no {name} in {:#}", said.all);
}

#[test]
fn doctor_says_what_a_limit_cannot_do_without_swap_a_ceiling_or_another_user() {
    let lab = Lab::new();
    let said = doctor(&[]);
    assert!(said.has("no_swap", "note").contains("memory_high"));
    assert!(said.has("bookkeeping_root", "note").contains("--user"));
    assert!(said.enforces);
    let ceiling = |max: &str| {
        let text = format!("[workloads]\nmemory_max = \"{max}\"\n");
        cgmgr(&["apply", &lab.file("c.role.toml", &text)]).expect(0);
        doctor(&[])
    };
    ceiling("50%").has("ceiling", "ok");
    let said = ceiling("max");
    assert!(said.has("no_ceiling", "warning").contains("cgmgr apply"));
    said.has_no("ceiling");
}

/// Where nothing runs on the disk that acts on weights, the kernel takes one and does nothing with it: a launch says so,
/// too. With iocost switched on it is enforced.
#[test]
fn a_weight_for_io_that_no_disk_acts_on_is_told_by_doctor_explain_run_and_apply() {
    let lab = Lab::new();
    let costs = format!("{MOUNT}/io.cost.qos");
    assert!(fs::exists(&costs).expect("a look"), "this kernel has no iocost");
    let role = lab.file("io.role.toml", "[runtime.limits]\nio_weight = 50\n");
    let run = || {
        let report = lab.path("report");
        let done = cgmgr(&["run", "--role", &role, "--report", &report, "--", "true"]).expect(0);
        let text = fs::read_to_string(&report).expect("a report");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        let receipt = told["receipt"].as_array().expect("entries").clone();
        let entry = receipt.into_iter().find(|e| e["knob"] == "io_weight");
        (done, entry.expect("an entry")["state"].clone())
    };
    let said = doctor(&[]);
    let told = said.has("io_weight_idle", "note");
    assert_eq!(said.knob("io_weight"), "not_enforced");
    cgmgr(&["explain", &role])
        .expect(0)
        .out
        .find("no disk runs iocost or BFQ")
        .expect("a word");
    let (done, state) = run();
    assert_eq!(state, "not_enforced");
    done.says("io_weight").says("no disk runs iocost or BFQ");
    cgmgr(&["run", "--role", &role, "--require-limits", "--", "true"])
        .expect(3)
        .says("io_weight");

    let number = told
        .split('(')
        .nth(1)
        .and_then(|t| t.split(')').next())
        .expect("a number")
        .to_owned();
    write(&costs, &format!("{number} enable=1"));
    let said = doctor(&[]);
    let (done, state) = run();
    write(&costs, &format!("{number} enable=0"));
    assert!(said.has("io_weight", "ok").contains(&number));
    assert_eq!(
        (said.knob("io_weight").as_str(), state.as_str()),
        ("enforced", Some("enforced"))
    );
    done.says_nothing_of("io_weight");
    assert!(read(&costs).is_empty() || read(&costs).contains("enable=0"));
}

/// Mount options are the whole machine's: they are put back at once.
#[test]
fn doctor_says_which_mount_option_is_missing() {
    let _lab = Lab::new();
    let remount = |options: &str| {
        let options = format!("remount,{options}");
        let mut mount = std::process::Command::new("mount");
        // With a source named, mount(8) adds none of the options in force.
        finish(mount.args(["-t", "cgroup2", "-o", &options, "none", MOUNT])).expect(0);
    };
    // A remount of cgroup v2 switches off what it does not name (cgroup-v2.rst, "Mounting").
    remount("nsdelegate");
    let said = doctor(&[]);
    remount("nsdelegate,memory_recursiveprot");
    assert!(
        said.has("no_recursiveprot", "warning")
            .contains("remount,memory_recursiveprot")
    );
    said.has_no("no_nsdelegate");
    doctor(&[]).has_no("no_recursiveprot");
}

/// People read it, too: every finding's words, and one line at the end.
#[test]
fn doctors_text_has_what_its_json_has() {
    let _lab = Lab::new();
    let said = doctor(&[]);
    let text = finish(&mut command(["doctor"])).expect(0).out;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for finding in said.findings.values() {
        let what = finding["what"].as_str().expect("words");
        // The self-test is another one each time.
        assert!(
            flat.contains(what) || finding["id"] == "self_test",
            "{what} is not in {text}"
        );
    }
    assert!(flat.contains("Limits can be enforced"), "{text}");
}

#[test]
fn doctor_says_what_the_hosts_policy_does() {
    let lab = Lab::new();
    doctor(&[]).has_no("host_policy");
    let good = lab.file("host.toml", "[limits]\nmemory_max = \"1 GiB\"\npids = 100\n");
    let said = doctor(&["--host-policy", &good]);
    assert!(said.has("host_policy", "ok").contains("caps 2 knobs"));
    let bad = lab.file("bad.toml", "[limits]\nmemory_mx = 1\n");
    let said = doctor(&["--host-policy", &bad]);
    assert!(said.has("host_policy_bad", "problem").contains("memory_mx"));
    assert!(!said.enforces);
}
