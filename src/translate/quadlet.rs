//! A `.container` file for podman's generator of units. Keys that Debian 13's podman 5.4 has; the rest goes through
//! `PodmanArgs=`, since `Memory=` came later.

use super::podman;
use super::sheet::Sheet;
use crate::limits::{Engine, KnobId};

pub(super) fn file(sheet: &mut Sheet<'_>) -> String {
    let label = sheet.label();
    let mut text = format!(
        "# Limits of the role {}, translated by cgmgr: /etc/containers/systemd/{label}.container\n\
         [Unit]\nDescription=A container under the limits of {label}\n\n[Container]\nImage={}\n",
        sheet.name(),
        // A per cent sign begins a specifier.
        sheet.image(&label).replace('%', "%%"),
    );
    // Podman divides the service's group (--cgroups=split): what counts beside others is the service's, and what systemd
    // allows a service by itself would hold for the container too.
    let mut service = String::from("\n[Service]\nTasksMax=infinity\n");
    for (id, value) in podman::values(sheet) {
        let name = id.knob().at(Engine::Quadlet).unwrap_or_default();
        if let KnobId::CpuWeight | KnobId::IoWeight = id {
            service.push_str(&format!("{name}={value}\n"));
            continue;
        }
        match name.strip_prefix("PodmanArgs=") {
            Some(option) => {
                text.push_str("PodmanArgs=");
                super::docker::push_option(&mut text, option, &value);
            }
            None => {
                text.push_str(name);
                text.push('=');
                text.push_str(&value);
            }
        }
        text.push('\n');
    }
    for option in podman::more(sheet) {
        text.push_str(&format!("PodmanArgs={option}\n"));
    }
    // What starts the container is the service: its first process inherits the nice value.
    if let Some(nice) = sheet.nice() {
        let name = KnobId::Nice.knob().at(Engine::Quadlet).unwrap_or_default();
        service.push_str(&format!("{name}={nice}\n"));
    }
    text.push_str(&service);
    text
}
