//! A role in the words of other programs: docker, podman, compose, quadlet, systemd, the OCI runtimes, Kubernetes, Nomad,
//! Slurm and Apple's container. Pure: settings in, text out.
//!
//! What a knob is called there is in the [knob table](crate::limits::KNOBS), and nowhere else; a file per program has its
//! form and its units. What cannot be said there, or means something else, is a [`Loss`]: nothing is dropped silently. A
//! value that a program has by itself (`cpu_weight = 100`, `oom.group = false`, `max`) need not be said, and is no loss.
#![deny(clippy::disallowed_methods)]

mod apple;
mod compose;
mod docker;
mod kubernetes;
mod nomad;
mod oci;
mod places;
mod podman;
mod quadlet;
mod sheet;
mod slurm;
mod systemd;
pub mod weights;

use crate::limits::{Engine, Settings};
use serde::Serialize;
use serde_json::Value as Json;
use sheet::Sheet;

/// Something that is declared and does not hold there, or not as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The knob's key, e.g. `memory_high`; `agent` or `workloads` where nothing of that part has a place.
    pub knob: String,
    /// What is declared, for reading, e.g. `12 GiB`.
    pub value: String,
    /// Why it does not hold, or what it becomes.
    pub why: String,
    /// What comes nearest to it there.
    pub instead: String,
}

/// What a role is in the words of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// The program.
    pub engine: Engine,
    /// The text, ready to use; it ends with a newline. Empty where there is nothing to say.
    pub text: String,
    /// The same as a value, where it is JSON.
    pub document: Option<Json>,
    /// What is lost, in the order of the knob table.
    pub losses: Vec<Loss>,
    /// What one should know, though nothing is lost.
    pub notes: Vec<String>,
}

/// What is said beside the limits.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The image of a container, for the forms that name one; `localhost/NAME:latest` where it is absent.
    pub image: Option<String>,
    /// A whole config.json to put the limits into; for [`Engine::Oci`].
    pub merge: Option<Json>,
}

/// Translates settings, those of a role called `name`.
///
/// # Errors
///
/// A `merge` that is no config.json, in words.
pub fn translate(
    name: &str,
    settings: &Settings,
    engine: Engine,
    options: Options,
) -> Result<Translation, String> {
    let mut sheet = Sheet::new(name, settings, engine, options.image);
    let mut document = None;
    let mut text = match engine {
        Engine::Docker => docker::options(&mut sheet),
        Engine::Podman => podman::options(&mut sheet),
        Engine::Compose => compose::file(&mut sheet),
        Engine::Quadlet => quadlet::file(&mut sheet),
        Engine::SystemdRun => systemd::options(&mut sheet),
        Engine::SystemdUnit => systemd::files(&mut sheet),
        Engine::Oci => {
            let config = oci::config(&mut sheet, options.merge)?;
            let text = format!("{config:#}");
            document = Some(config);
            text
        }
        Engine::Kubernetes => kubernetes::objects(&mut sheet),
        Engine::Nomad => nomad::job(&mut sheet),
        Engine::Slurm => slurm::lines(&mut sheet),
        Engine::AppleContainer => apple::options(&mut sheet),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let (losses, notes) = sheet.finish();
    Ok(Translation {
        engine,
        text,
        document,
        losses,
        notes,
    })
}
