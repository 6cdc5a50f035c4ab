//! Converts rustdoc's JSON of a crate to lines, one for each public item.

use std::collections::BTreeSet;

use serde_json::Value;

use super::render;

/// Returns the lines of one crate.
pub(super) fn of(json: &Value) -> Result<BTreeSet<String>, String> {
    let root = json["root"].as_u64().ok_or("rustdoc names no root; another format than expected")?;
    let mut walk = Walk { json, lines: BTreeSet::new(), inside: Vec::new() };
    let name = walk.item(root).and_then(|item| item["name"].as_str()).ok_or("the crate has no name")?;
    walk.module(name, root);
    walk.implementations();
    Ok(walk.lines)
}

struct Walk<'a> {
    json: &'a Value,
    lines: BTreeSet<String>,
    /// The enclosing modules, so that a module that re-exports one of them does not recurse without end.
    inside: Vec<u64>,
}

impl<'a> Walk<'a> {
    fn item(&self, id: u64) -> Option<&'a Value> {
        self.json["index"].get(id.to_string())
    }

    fn line(&mut self, text: String) {
        self.lines.insert(text);
    }

    fn module(&mut self, path: &str, id: u64) {
        if self.inside.contains(&id) {
            return;
        }
        self.inside.push(id);
        let items = self.item(id).map_or(&Value::Null, |item| &item["inner"]["module"]["items"]);
        for id in ids(items) {
            self.entry(path, id);
        }
        self.inside.pop();
    }

    /// Adds an item of a module.
    fn entry(&mut self, path: &str, id: u64) {
        let Some(item) = self.item(id) else { return };
        let Some((kind, inner)) = kind(item) else { return };
        if kind == "use" {
            return self.re_export(path, inner);
        }
        let own = format!("{path}::{}", item["name"].as_str().unwrap_or_default());
        self.named(&own, id, (kind, inner));
    }

    fn named(&mut self, own: &str, id: u64, (kind, inner): (&str, &'a Value)) {
        let generics = render::generics(&inner["generics"]);
        match kind {
            "module" => {
                self.line(format!("pub mod {own}"));
                self.module(own, id);
            }
            "function" => self.line(format!("pub {}", render::function(own, inner))),
            "struct" => self.structure(own, id, inner),
            "enum" => {
                let marks = self.marks(id);
                self.line(format!("pub enum {own}{generics}{marks}"));
                ids(&inner["variants"]).into_iter().for_each(|variant| self.variant(own, variant));
                self.own_methods(own, inner);
            }
            "union" => self.line(format!("pub union {own}{generics}")),
            "trait" => self.interface(own, inner),
            "type_alias" => {
                self.line(format!("pub type {own}{generics} = {}", render::kind(&inner["type"])));
            }
            "constant" => self.line(format!("pub const {own}: {}", render::kind(&inner["type"]))),
            "static" => self.line(format!("pub static {own}: {}", render::kind(&inner["type"]))),
            "macro" => self.line(format!("pub macro {own}!")),
            other => self.line(format!("pub {other} {own}")),
        }
    }

    /// Adds a re-export: an item of this crate gets its lines under the new path; one of another crate is
    /// only named.
    fn re_export(&mut self, path: &str, inner: &'a Value) {
        let name = inner["name"].as_str().unwrap_or_default();
        let local = inner["id"].as_u64().filter(|id| self.item(*id).is_some());
        let Some((id, item)) = local.and_then(|id| Some((id, self.item(id)?))) else {
            let source = inner["source"].as_str().unwrap_or_default();
            let all = if inner["is_glob"] == true { "::*" } else { "" };
            let shown = if all.is_empty() { format!("{path}::{name}") } else { path.to_owned() };
            return self.line(format!("pub use {shown} = {source}{all}"));
        };
        match kind(item) {
            Some(("module", _)) if inner["is_glob"] == true => self.module(path, id),
            Some(("use", further)) => self.re_export(path, further),
            Some(found) => self.named(&format!("{path}::{name}"), id, found),
            None => {}
        }
    }

    fn structure(&mut self, own: &str, id: u64, inner: &'a Value) {
        let marks = self.marks(id);
        let generics = render::generics(&inner["generics"]);
        let fields = &inner["kind"];
        let tuple: Vec<_> = fields["tuple"].as_array().into_iter().flatten().collect();
        let shown: Vec<_> =
            tuple.iter().map(|field| self.field(field).unwrap_or_else(|| "_".into())).collect();
        let shown = if tuple.is_empty() { String::new() } else { format!("({})", shown.join(", ")) };
        self.line(format!("pub struct {own}{generics}{shown}{marks}"));
        for field in ids(&fields["plain"]["fields"]) {
            self.plain_field(own, field);
        }
        self.own_methods(own, inner);
    }

    /// Returns the type of a field if it is public.
    fn field(&self, id: &Value) -> Option<String> {
        let item = self.item(id.as_u64()?)?;
        (item["visibility"] == "public" || item["visibility"] == "default")
            .then(|| render::kind(&item["inner"]["struct_field"]))
    }

    fn plain_field(&mut self, own: &str, id: u64) {
        let kind = self.field(&Value::from(id));
        let name = self.item(id).and_then(|item| item["name"].as_str());
        if let (Some(kind), Some(name)) = (kind, name) {
            self.line(format!("pub {own}::{name}: {kind}"));
        }
    }

    fn variant(&mut self, own: &str, id: u64) {
        let Some(item) = self.item(id) else { return };
        let path = format!("{own}::{}", item["name"].as_str().unwrap_or_default());
        let shape = &item["inner"]["variant"]["kind"];
        let tuple: Vec<_> = shape["tuple"].as_array().into_iter().flatten().collect();
        let shown: Vec<_> =
            tuple.iter().map(|field| self.field(field).unwrap_or_else(|| "_".into())).collect();
        let shown = if tuple.is_empty() { String::new() } else { format!("({})", shown.join(", ")) };
        self.line(format!("pub {path}{shown}"));
        for field in ids(&shape["struct"]["fields"]) {
            self.plain_field(&path, field);
        }
    }

    /// Returns the attributes that affect how others may use a type.
    fn marks(&self, id: u64) -> &'static str {
        let attributes = self.item(id).map(|item| item["attrs"].to_string()).unwrap_or_default();
        if attributes.contains("non_exhaustive") { " #[non_exhaustive]" } else { "" }
    }

    fn interface(&mut self, own: &str, inner: &'a Value) {
        let safety = if inner["is_unsafe"] == true { "unsafe " } else { "" };
        let bounds = render::bounds(&inner["bounds"]);
        let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
        self.line(format!("pub {safety}trait {own}{}{bounds}", render::generics(&inner["generics"])));
        for id in ids(&inner["items"]) {
            self.member(own, id);
        }
    }

    /// Adds a method, constant or type of a trait or of an inherent `impl`.
    fn member(&mut self, own: &str, id: u64) {
        let Some(item) = self.item(id) else { return };
        let Some((kind, inner)) = kind(item) else { return };
        let path = format!("{own}::{}", item["name"].as_str().unwrap_or_default());
        match kind {
            "function" => {
                // A provided method is optional for implementations.
                let provided = if inner["has_body"] == true { "" } else { ";" };
                self.line(format!("pub {}{provided}", render::function(&path, inner)));
            }
            "assoc_const" => self.line(format!("pub const {path}: {}", render::kind(&inner["type"]))),
            "assoc_type" => {
                let bounds = render::bounds(&inner["bounds"]);
                let value = render::optional(" = ", &inner["type"]);
                self.line(format!("pub type {path}: {bounds}{value}"));
            }
            _ => {}
        }
    }

    fn own_methods(&mut self, own: &str, inner: &'a Value) {
        for id in ids(&inner["impls"]) {
            let Some(found) = self.item(id).map(|item| &item["inner"]["impl"]) else { continue };
            if found["trait"].is_null() {
                let public = |id: &u64| self.item(*id).is_some_and(|item| item["visibility"] == "public");
                let members: Vec<_> = ids(&found["items"]).into_iter().filter(public).collect();
                members.into_iter().for_each(|member| self.member(own, member));
            }
        }
    }

    /// Adds the trait implementations, except automatic and blanket ones.
    fn implementations(&mut self) {
        let items = self.json["index"].as_object().into_iter().flat_map(|index| index.values());
        let lines: Vec<_> = items
            .map(|item| &item["inner"]["impl"])
            .filter(|found| found.is_object() && !found["trait"].is_null())
            .filter(|found| found["is_synthetic"] != true && found["blanket_impl"].is_null())
            .map(render::implementation)
            .collect();
        self.lines.extend(lines);
    }
}

/// Returns the kind of an item, and the data for that kind.
fn kind(item: &Value) -> Option<(&str, &Value)> {
    item["inner"].as_object()?.iter().next().map(|(kind, inner)| (kind.as_str(), inner))
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(index: Value) -> Vec<String> {
        of(&json!({ "root": 0, "index": index })).expect("a listing").into_iter().collect()
    }

    fn item(name: &str, inner: Value) -> Value {
        json!({ "name": name, "visibility": "public", "attrs": [], "inner": inner })
    }

    #[test]
    fn items_have_their_paths_and_hidden_fields_are_not_told() {
        let module = |items: Value| json!({ "module": { "items": items } });
        let hidden = json!({ "name": "hidden", "visibility": "crate", "inner": { "struct_field": { "primitive": "u8" } } });
        let method = json!({ "function": {
            "sig": { "inputs": [["self", { "generic": "Self" }]], "output": { "primitive": "u8" } },
            "generics": {}, "header": {}, "has_body": true,
        } });
        let index = json!({
            "0": item("mine", module(json!([1]))),
            "1": item("inner", module(json!([2, 9]))),
            "2": item("Thing", json!({ "struct": {
                "kind": { "plain": { "fields": [3, 4] } }, "generics": {}, "impls": [5, 6],
            } })),
            "3": item("shown", json!({ "struct_field": { "primitive": "u16" } })),
            "4": hidden,
            "5": item("", json!({ "impl": { "trait": null, "items": [7] } })),
            "6": item("", json!({ "impl": {
                "trait": { "path": "Clone" }, "for": { "resolved_path": { "path": "Thing" } }, "generics": {},
            } })),
            "7": item("read", method),
            // The crate again, below its own module.
            "9": item("", json!({ "use": { "name": "mine", "source": "crate", "id": 0, "is_glob": true } })),
        });
        assert_eq!(
            lines(index),
            [
                "impl Clone for Thing",
                "pub fn mine::inner::Thing::read(self) -> u8",
                "pub mine::inner::Thing::shown: u16",
                "pub mod mine::inner",
                "pub struct mine::inner::Thing",
            ]
        );
    }

    #[test]
    fn what_another_crate_has_is_named() {
        let crate_ = json!({ "name": "eal", "source": "linecard_eal", "id": 77, "is_glob": false });
        let glob = json!({ "name": "all", "source": "linecard_all", "id": null, "is_glob": true });
        let index = json!({
            "0": item("mine", json!({ "module": { "items": [1, 2] } })),
            "1": item("", json!({ "use": crate_ })),
            "2": item("", json!({ "use": glob })),
        });
        assert_eq!(lines(index), ["pub use mine = linecard_all::*", "pub use mine::eal = linecard_eal"]);
    }
}
