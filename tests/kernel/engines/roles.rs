//! Roles, what a session of them is held to, and what a translation says of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use cgmgr::files;
use cgmgr::kernel::probe;
use cgmgr::limits::{Engine, KNOBS, KnobId, Part, Settings, Value};
use cgmgr::role::Overrides;
use serde_json::Value as Json;

use super::held::{Held, Sleeper};
use crate::any::fates::say;
use crate::cgmgr::cgmgr;
use crate::lab::{Lab, example, examples};

/// Every knob, with values that nobody has by himself.
pub const EVERYTHING: (&str, &str) = (
    "everything",
    "[runtime.limits]\nmemory_high = \"96 MiB\"\nmemory_max = \"128 MiB\"\nmemory_swap_max = \"16 MiB\"\ncpus = 1.5\n\
     cpu_weight = 250\nio_weight = 40\npids = 77\nnofile = 512\nnice = 7\noom_score_adj = 500\n\
     [runtime.limits.oom]\ngroup = true\n",
);

/// Numbers that somebody rounds.
pub const ODD: (&str, &str) = (
    "odd",
    "[runtime.limits]\nmemory_high = \"100000001\"\nmemory_max = \"123456789\"\nmemory_swap_max = \"5000001\"\n\
     cpus = 1.2345\ncpu_weight = 57\nio_weight = 33\npids = 77\n",
);

/// Limits that lean on others that are not there, and `max` said aloud.
pub const ALONE: (&str, &str) = (
    "alone",
    "[runtime.limits]\nmemory_max = \"max\"\nmemory_swap_max = \"64 MiB\"\ncpus = \"max\"\npids = \"max\"\n\
     [runtime.limits.oom]\ngroup = false\n",
);

/// Less memory than some take.
pub const LITTLE: (&str, &str) = ("little", "[runtime.limits]\nmemory_max = \"5 MiB\"\n");

/// Nothing.
pub const NOTHING: (&str, &str) = ("nothing", "[runtime.limits]\n");

/// All of these.
pub const OWN: [(&str, &str); 5] = [EVERYTHING, ODD, ALONE, LITTLE, NOTHING];

/// Sessions cost time: what one of a role was held to is looked at once.
static OURS: Mutex<BTreeMap<String, Held>> = Mutex::new(BTreeMap::new());

/// A role file.
pub struct Role {
    /// Where it is.
    pub path: String,
    /// What it declares.
    pub settings: Settings,
    /// What a session of it is held to.
    pub ours: Held,
}

impl Role {
    /// One of the examples.
    pub fn example(name: &str) -> Role {
        Role::at(example(name))
    }

    /// One of this file's.
    pub fn own(lab: &Lab, (name, text): (&str, &str)) -> Role {
        Role::at(lab.file(&format!("{name}.role.toml"), text))
    }

    /// All there are: the examples and this file's own.
    pub fn all(lab: &Lab) -> Vec<Role> {
        let paths = examples().into_iter().map(|path| path.display().to_string());
        paths
            .map(Role::at)
            .chain(OWN.map(|own| Role::own(lab, own)))
            .collect()
    }

    fn at(path: String) -> Role {
        let read = files::resolve(
            Path::new(&path),
            &probe::machine(),
            &Overrides::default(),
            &|_| None,
        );
        let (role, _) = read.expect("a file").expect("a role");
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut known = OURS.lock().expect("one test at a time");
        let ours = known.entry(name).or_insert_with(|| session(&path)).clone();
        Role {
            path,
            settings: role.settings,
            ours,
        }
    }

    /// What it is in another program's words.
    #[track_caller]
    pub fn to(&self, engine: Engine, options: &[&str]) -> Said {
        let mut words = vec!["translate", "--json", "--to", engine.name()];
        words.extend(options);
        words.push(&self.path);
        Said(cgmgr(&words).expect(0).json())
    }
}

/// What a session of a role is held to.
fn session(path: &str) -> Held {
    let sleeper = Sleeper::new();
    let mut words = vec!["run", "--detach", "--name", "ours", "--role", path, "--"];
    words.extend(sleeper.words());
    cgmgr(&words).expect(0);
    let held = sleeper.held();
    cgmgr(&["kill", "ours"]).expect(0);
    held
}

/// A translation.
pub struct Said(Json);

impl Said {
    /// The text.
    #[track_caller]
    pub fn text(&self) -> &str {
        self.0["text"].as_str().expect("a text")
    }

    /// The words of a text that is a command line's.
    pub fn words(&self) -> Vec<&str> {
        self.text().split_whitespace().collect()
    }

    /// Why a knob is lost, where it is.
    pub fn loss(&self, key: &str) -> Option<&str> {
        let losses = self.0["losses"].as_array().expect("a list");
        losses.iter().find(|loss| loss["knob"] == key)?["why"].as_str()
    }

    /// What comes nearest to a knob that is lost.
    #[track_caller]
    pub fn instead(&self, key: &str) -> &str {
        let losses = self.0["losses"].as_array().expect("a list");
        let loss = losses.iter().find(|loss| loss["knob"] == key);
        let instead = loss.and_then(|loss| loss["instead"].as_str());
        instead.unwrap_or_else(|| panic!("{key} is not lost"))
    }

    /// Whether a note has this in it.
    pub fn notes(&self, part: &str) -> bool {
        let notes = self.0["notes"].as_array().expect("a list");
        notes
            .iter()
            .any(|note| note.as_str().is_some_and(|note| note.contains(part)))
    }
}

/// A knob that is looked at.
pub struct Case<'a> {
    /// Which.
    pub id: KnobId,
    /// What the role says.
    pub declared: Option<&'a Value>,
    /// Why it is lost.
    pub loss: Option<&'a str>,
    /// The whole translation.
    pub said: &'a Said,
    /// What a session is held to.
    pub ours: &'a str,
    /// All that is held there.
    pub theirs: &'a Held,
}

/// Everything that is not as it was said, of many roles.
#[derive(Default)]
pub struct Wrong {
    lines: Vec<String>,
    compared: usize,
}

impl Wrong {
    /// Compares what is held there with what a session is held to. `instead` knows what is there otherwise: for each knob
    /// that is lost, and where the program does something by itself.
    pub fn compare(
        &mut self,
        role: &Role,
        said: &Said,
        theirs: &Held,
        instead: impl Fn(&Case<'_>) -> Option<String>,
    ) {
        // Under emulation this takes its time, and a guest that says nothing is taken for dead.
        say(&format!("{} is compared", role.path));
        for knob in KNOBS.iter().filter(|knob| knob.part == Part::Session) {
            if knob.file.is_none() && !knob.is_on_process() {
                continue;
            }
            let case = Case {
                id: knob.id,
                declared: role.settings.value(knob.id),
                loss: said.loss(knob.key),
                said,
                ours: role.ours.knob(knob.id),
                theirs,
            };
            let expected = match (instead(&case), case.loss, case.declared) {
                (Some(other), ..) => other,
                (None, Some(why), _) => {
                    self.lines.push(format!(
                        "{}: {} is lost ({why}), and nobody knows what is there instead: {}",
                        role.path,
                        knob.key,
                        theirs.knob(knob.id)
                    ));
                    continue;
                }
                // Whoever starts a process hands these down.
                (None, None, None) if knob.is_on_process() => continue,
                (None, None, _) => case.ours.to_owned(),
            };
            self.compared += 1;
            if theirs.knob(knob.id) != expected {
                self.lines.push(format!(
                    "{}: {} is {}, and was to be {expected}; a session is held to {}; lost: {:?}",
                    role.path,
                    knob.key,
                    theirs.knob(knob.id),
                    case.ours,
                    case.loss
                ));
            }
        }
    }

    /// Something else that has to be so.
    pub fn unless(&mut self, so: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !so {
            self.lines.push(what());
        }
    }
}

impl Drop for Wrong {
    /// Fails where there is any.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.lines.is_empty(), "{}", self.lines.join("\n"));
            assert!(self.compared > 0, "nothing was compared");
        }
    }
}
