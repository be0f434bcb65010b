//! `DZ061`: a template's file can be fetched from its store, and by nothing but that.

use super::{Lint, Plan, listed};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ061",
    name: "template",
    about: "store URLs are http or https without credentials; template files are plain relative names",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (store, path) in listed(&plan.site.secondary_storage, "secondary_storage") {
        let rest = store.url.strip_prefix("http://").or_else(|| store.url.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or(""));
        let (problem, help) = match host {
            None => {
                ("is neither http:// nor https://".to_owned(), "write a URL such as http://10.77.0.5:8081")
            }
            Some(host) if host.contains('@') => (
                "carries a login, which would stand in the clear".to_owned(),
                "remove it: the store is read without a login, from the management network",
            ),
            Some(host) if host.is_empty() || host.starts_with(':') => {
                ("names no host".to_owned(), "write a URL such as http://10.77.0.5:8081")
            }
            Some(_) if store.url.contains(['?', '#', ' ']) => (
                "has more than a host and a path".to_owned(),
                "write a base URL; file names are put behind it",
            ),
            Some(_) => continue,
        };
        // The URL itself is underlined in the source; a login in it is not repeated in the message.
        out.push(
            Finding::error(LINT.code, format!("the URL of secondary storage {} {problem}", store.name))
                .help(help)
                .at(&path.key("url"), ""),
        );
    }
    for (template, path) in listed(&plan.site.templates, "templates") {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
        let plain = template.file.chars().all(allowed)
            && template.file.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !plain {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("template {}: `{}` is no plain relative file name", template.name, template.file),
                )
                .help("write a name below the store's URL, of a-z A-Z 0-9 - _ . + and /, without `..`")
                .at(&path.key("file"), ""),
            );
        }
        let formats = [".qcow2", ".vmdk", ".vhd", ".vhdx", ".iso"];
        if let Some(format) = formats.iter().find(|format| template.file.to_lowercase().ends_with(*format)) {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("template {}: {format} is no raw disk image", template.name),
                )
                .help("convert it: `qemu-img convert -O raw …`; volumes are raw")
                .at(&path.key("file"), "not raw"),
            );
        }
    }
}
