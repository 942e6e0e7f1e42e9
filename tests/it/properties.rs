//! Properties: what holds for every value, every text and every plan, tried on random ones. `PROPTEST_CASES` sets how
//! many are tried, e.g. `PROPTEST_CASES=100000 cargo test properties`.

mod entries;
mod folding;
mod kernel_files;
mod names;
mod plans;
mod role_files;
mod translations;
mod values;

use cgmgr::host::{Machine, Tasks};
use proptest::prelude::*;
use proptest::sample::select;

/// The usual number of cases. A failing case is printed in full and belongs into a unit test: no file of seeds is kept.
pub(crate) fn usual() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A quarter of it, for what takes long.
fn fewer() -> ProptestConfig {
    let usual = usual();
    ProptestConfig {
        cases: usual.cases.div_ceil(4),
        ..usual
    }
}

/// Any machine, one included whose /proc says nothing (`u64::MAX`).
fn machine() -> impl Strategy<Value = Machine> {
    let memory = prop_oneof![9 => magnitude(), 1 => Just(u64::MAX)];
    let page = select(vec![4096u64, 16_384, 65_536]);
    (memory, magnitude(), page, 1u32..4096, magnitude(), magnitude()).prop_map(
        |(mem_total, swap_total, page_size, cpus, pid_max, threads_max)| Machine {
            mem_total,
            swap_total,
            page_size,
            cpus,
            tasks: Tasks::Known(u64::min(pid_max, threads_max)),
        },
    )
}

/// A number of any size: small ones are as likely as large ones.
fn magnitude() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
}

/// A character that parsers stumble over, or any.
fn odd_char() -> impl Strategy<Value = char> {
    let odd = " \t\r\n\0\\/.,:;=-+()[]\"'#%$_0e\u{7f}\u{85}\u{9b}\u{a0}\u{2028}\u{202e}\u{feff}ä１";
    prop_oneof![select(odd.chars().collect::<Vec<_>>()), any::<char>()]
}

/// Up to 200 characters of any kind.
fn odd_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(odd_char(), 0..=200).prop_map(String::from_iter)
}
