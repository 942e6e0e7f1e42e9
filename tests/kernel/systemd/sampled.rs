//! A session that is a scope, sampled by its leaf: its limits are those of the scope, and what happened in both is counted.

use cgmgr::kernel::sample::Fields;
use cgmgr::limits::Max;

use crate::any::sampled::sampler;
use crate::scoped::{self, Scopes, file_of, main_of};

#[test]
fn a_scope_is_sampled_by_its_leaf() {
    let scopes = Scopes::new();
    let live = scoped::hold("leaf", &["--memory-max", "100MiB", "--memory-high", "60MiB"], 61);
    let mut sampler = sampler(&main_of("leaf"));
    let sample = sampler.sample(Fields::CHEAP).expect("it is there");
    assert_eq!(sample.memory_high, Some(Max::At(60 << 20)));
    assert_eq!(sample.memory_max, Some(Max::At(100 << 20)));
    // memory.high was passed on the scope, and the task that was slowed down for it is in the leaf.
    let own = sample.memory_events_local.expect("events");
    assert!(
        own.high > Some(0),
        "{own:?} {}",
        file_of("leaf", "memory.events.local")
    );
    live.end().expect(0);
    assert_eq!(sampler.sample(Fields::CHEAP), None);
    scopes.nothing_left();
}
