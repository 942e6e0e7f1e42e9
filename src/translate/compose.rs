//! A Compose file: the service with its limits as top-level keys, which `docker compose` and podman-compose read. The file
//! goes beside another one (`docker compose -f compose.yaml -f limits.yaml`), or alone.

use super::docker;
use super::sheet::Sheet;
use crate::limits::{Engine, KnobId};

pub(super) fn file(sheet: &mut Sheet<'_>) -> String {
    let label = sheet.label();
    let mut text = format!(
        "# Limits of the role {}, translated by cgmgr.\nservices:\n  {label}:\n    image: {}\n",
        sheet.name(),
        quoted(&sheet.image(&label)),
    );
    for (id, value) in docker::values(sheet) {
        let name = id.knob().at(Engine::Compose).unwrap_or_default();
        match (id, name.split_once('.')) {
            (KnobId::Nofile, Some((group, key))) => {
                let (soft, hard) = value.split_once(':').unwrap_or_default();
                text.push_str(&format!(
                    "    {group}:\n      {key}:\n        soft: {soft}\n        hard: {hard}\n"
                ));
            }
            (_, Some((group, key))) => text.push_str(&format!("    {group}:\n      {key}: {value}\n")),
            (_, None) => text.push_str(&format!("    {name}: {value}\n")),
        }
    }
    sheet.note("`docker stack deploy` reads limits below deploy.resources only, and not these keys");
    text
}

/// Text as a double-quoted scalar of YAML, of which JSON's is one.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
