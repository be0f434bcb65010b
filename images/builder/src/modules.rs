//! Which kernel modules go into an initial RAM disk: a list of names, and all that those need.
//!
//! Invariants: a module comes with its dependencies (hard ones of `modules.dep`, soft ones of `modules.softdep`); a name
//! that is built in is satisfied; a name that this kernel lacks is an error, unless the list marks it with `?`.
//! It loads nothing.

use crate::error::{self, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules of one kernel, as depmod indexed them.
pub(crate) struct Index {
    /// Path below the modules' directory by canonical name (hyphens as underscores).
    paths: BTreeMap<String, String>,
    /// Names that each needs, hard and soft.
    needs: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Index {
    pub(crate) fn read(modules: &Path) -> Result<Self> {
        let text = |name: &str| error::read_text(&modules.join(name));
        Ok(Self::parse(&text("modules.dep")?, &text("modules.softdep")?, &text("modules.builtin")?))
    }

    fn parse(dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut index = Self { paths: BTreeMap::new(), needs: BTreeMap::new(), builtin: BTreeSet::new() };
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let name = name_of(path);
            index.needs.insert(name.clone(), needs.split_whitespace().map(name_of).collect());
            index.paths.insert(name, path.to_owned());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let soft = words.filter(|word| !word.ends_with(':')).map(canonical);
            index.needs.entry(canonical(name)).or_default().extend(soft);
        }
        index.builtin = builtin.lines().map(name_of).collect();
        index
    }

    /// The paths of all modules in a list and of what they need, sorted.
    pub(crate) fn closure(&self, list: &str) -> Result<Vec<&str>> {
        let mut todo = self.wanted(list)?;
        let mut chosen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            // What a soft dependency names may be built in, or absent: it is soft.
            if let Some(path) = self.paths.get(&name)
                && chosen.insert(path.as_str())
            {
                todo.extend(self.needs.get(&name).into_iter().flatten().cloned());
            }
        }
        Ok(chosen.into_iter().collect())
    }

    /// As [`Index::closure`], in an order in which each can be loaded: what a module needs comes first.
    pub(crate) fn in_order(&self, list: &str) -> Result<Vec<&str>> {
        let mut order = Vec::new();
        for name in self.wanted(list)? {
            self.visit(&name, &mut order);
        }
        Ok(order)
    }

    fn visit<'a>(&'a self, name: &str, order: &mut Vec<&'a str>) {
        let Some(path) = self.paths.get(name) else { return };
        if order.contains(&path.as_str()) {
            return;
        }
        for need in self.needs.get(name).into_iter().flatten().filter(|need| *need != name) {
            self.visit(need, order);
        }
        order.push(path);
    }

    /// The names of a list that are modules of this kernel.
    fn wanted(&self, list: &str) -> Result<Vec<String>> {
        let mut todo = Vec::new();
        for entry in entries(list) {
            let (name, optional) = entry.strip_suffix('?').map_or((entry, false), |name| (name, true));
            let name = canonical(name);
            if self.paths.contains_key(&name) {
                todo.push(name);
            } else if !optional && !self.builtin.contains(&name) {
                return Err(Error::Input(format!(
                    "this kernel has no module '{name}' (mark it '{name}?' in the list if it may be absent)"
                )));
            }
        }
        Ok(todo)
    }
}

/// Lines of a list, without comments and empty ones.
pub(crate) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty())
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split('.').next().unwrap_or(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko\nkernel/lib/crc16.ko:\nkernel/fs/jbd2/jbd2.ko:\n\
             kernel/crypto/crc32c_generic.ko:\nkernel/drivers/usb/host/xhci-pci.ko: kernel/drivers/usb/host/xhci-hcd.ko\n\
             kernel/drivers/usb/host/xhci-hcd.ko:\n",
            "# comment\nsoftdep ext4 pre: crc32c_generic missing_one\n",
            "kernel/net/packet/af_packet.ko\n",
        )
    }

    #[test]
    fn a_module_brings_what_it_needs() {
        let index = index();
        let paths = index.closure("ext4 # the root\n\naf_packet\nxhci_pci\nnothing?\n").unwrap();
        insta::assert_snapshot!(paths.join("\n"), @r"
        kernel/crypto/crc32c_generic.ko
        kernel/drivers/usb/host/xhci-hcd.ko
        kernel/drivers/usb/host/xhci-pci.ko
        kernel/fs/ext4/ext4.ko
        kernel/fs/jbd2/jbd2.ko
        kernel/lib/crc16.ko
        ");
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let index = index();
        let order = index.in_order("ext4\nxhci-pci\next4").unwrap();
        let at = |name: &str| order.iter().position(|path| path.ends_with(name)).unwrap();
        assert!(at("/crc16.ko") < at("/ext4.ko") && at("/xhci-hcd.ko") < at("/xhci-pci.ko"));
        assert_eq!(order.len(), 6);
    }

    #[test]
    fn an_unknown_module_is_named() {
        let error = index().closure("ext4\nnothing").unwrap_err().to_string();
        assert!(error.contains("'nothing'"), "{error}");
    }
}
