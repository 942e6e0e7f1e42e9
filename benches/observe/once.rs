//! One sample of all groups in a folder, by a program that begins and ends with it: what is measured beside others that
//! do the same.

use cgmgr::kernel::Tree;
use cgmgr::kernel::sample::Fields;
use cgmgr::kernel::sampler::Sampler;
use cgmgr::path::GroupPath;

/// A sampler for each group in `parent`.
pub fn samplers(parent: &str) -> Result<Vec<Sampler>, String> {
    let tree = Tree::open("/sys/fs/cgroup").map_err(|e| e.to_string())?;
    let path = parent.strip_prefix("/sys/fs/cgroup").and_then(GroupPath::new);
    let path = path.ok_or_else(|| format!("{parent} is no group"))?;
    let group = tree.group(&path).map_err(|e| e.to_string())?;
    let names = group.children().map_err(|e| e.to_string())?;
    let sampler = |name: &String| Sampler::new(group.child(name)?);
    names
        .iter()
        .map(|name| sampler(name).map_err(|e| e.to_string()))
        .collect()
}

/// Samples each group in `parent`: `cheap`, or what is `shown`. Fails where one does not say what it holds.
pub fn once(what: &str, parent: &str) -> Result<(), String> {
    let what = match what {
        "shown" => Fields::SHOWN,
        _ => Fields::CHEAP,
    };
    crate::live::raise_open_files()?;
    for sampler in &mut samplers(parent)? {
        let sample = sampler.sample(what);
        if sample.and_then(|sample| sample.memory_current).is_none() {
            return Err(format!("{} says nothing", sampler.group().path()));
        }
    }
    Ok(())
}
