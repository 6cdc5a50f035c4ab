//! Formats types, bounds and signatures of rustdoc's JSON in Rust syntax.

use serde_json::Value;

/// Formats a type.
pub(super) fn kind(value: &Value) -> String {
    let Some((name, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return "_".to_owned(); // "infer"
    };
    match name.as_str() {
        "primitive" | "generic" => inner.as_str().unwrap_or_default().to_owned(),
        "resolved_path" => path(inner),
        "dyn_trait" => {
            let traits = list(&inner["traits"], |it| higher(it) + &path(&it["trait"])).join(" + ");
            let lifetime = inner["lifetime"].as_str().map(|it| format!(" + {it}")).unwrap_or_default();
            format!("dyn {traits}{lifetime}")
        }
        "tuple" => format!("({})", list(inner, kind).join(", ")),
        "slice" => format!("[{}]", kind(inner)),
        "array" => format!("[{}; {}]", kind(&inner["type"]), inner["len"].as_str().unwrap_or("_")),
        "impl_trait" => format!("impl {}", bounds(inner)),
        "raw_pointer" => {
            let mutable = if inner["is_mutable"] == true { "mut" } else { "const" };
            format!("*{mutable} {}", kind(&inner["type"]))
        }
        "borrowed_ref" => {
            let lifetime = inner["lifetime"].as_str().map(|it| format!("{it} ")).unwrap_or_default();
            let mutable = if inner["is_mutable"] == true { "mut " } else { "" };
            format!("&{lifetime}{mutable}{}", kind(&inner["type"]))
        }
        "qualified_path" => {
            let (own, name) = (kind(&inner["self_type"]), inner["name"].as_str().unwrap_or_default());
            let of = if inner["trait"].is_null() { String::new() } else { path(&inner["trait"]) };
            let arguments = arguments(&inner["args"]);
            if of.is_empty() {
                format!("{own}::{name}{arguments}")
            } else {
                format!("<{own} as {of}>::{name}{arguments}")
            }
        }
        "function_pointer" => {
            let inputs = list(&inner["sig"]["inputs"], |it| kind(&it[1])).join(", ");
            format!("{}fn({inputs}){}", header(&inner["header"]), optional(" -> ", &inner["sig"]["output"]))
        }
        other => other.to_owned(),
    }
}

/// Formats `before` and a type, if there is one.
pub(super) fn optional(before: &str, value: &Value) -> String {
    if value.is_null() { String::new() } else { format!("{before}{}", kind(value)) }
}

/// Formats a path with its arguments: `Vec<u8>`.
fn path(value: &Value) -> String {
    value["path"].as_str().unwrap_or_default().to_owned() + &arguments(&value["args"])
}

fn arguments(value: &Value) -> String {
    if let Some(called) = value.get("parenthesized") {
        let inputs = list(&called["inputs"], kind).join(", ");
        return format!("({inputs}){}", optional(" -> ", &called["output"]));
    }
    let Some(angle) = value.get("angle_bracketed") else { return String::new() };
    let mut all = list(&angle["args"], argument);
    all.extend(list(&angle["constraints"], |it| {
        let name = it["name"].as_str().unwrap_or_default();
        match it["binding"].get("equality") {
            Some(equal) => format!("{name} = {}", argument(equal)),
            None => format!("{name}: {}", bounds(&it["binding"]["constraint"])),
        }
    }));
    if all.is_empty() { String::new() } else { format!("<{}>", all.join(", ")) }
}

fn argument(value: &Value) -> String {
    let constant = value.get("const").or_else(|| value.get("constant"));
    match (value.get("lifetime"), value.get("type"), constant) {
        (Some(lifetime), ..) => lifetime.as_str().unwrap_or_default().to_owned(),
        (_, Some(inner), _) => kind(inner),
        (.., Some(constant)) => constant["expr"].as_str().unwrap_or("_").to_owned(),
        _ => "_".to_owned(),
    }
}

/// Formats bounds, separated by `+`.
pub(super) fn bounds(value: &Value) -> String {
    let one = |bound: &Value| {
        if let Some(found) = bound.get("trait_bound") {
            let maybe = if found["modifier"] == "maybe" { "?" } else { "" };
            return format!("{maybe}{}{}", higher(found), path(&found["trait"]));
        }
        match bound.get("use") {
            Some(captured) => {
                let captured =
                    list(captured, |it| it.as_str().map_or_else(|| argument_name(it), str::to_owned));
                format!("use<{}>", captured.join(", "))
            }
            None => bound["outlives"].as_str().unwrap_or_default().to_owned(),
        }
    };
    list(value, one).join(" + ")
}

fn argument_name(value: &Value) -> String {
    value.as_object().and_then(|it| it.values().next()).and_then(Value::as_str).unwrap_or("_").to_owned()
}

/// Formats `for<'a> `, if a bound has it.
fn higher(value: &Value) -> String {
    let names = list(&value["generic_params"], |it| it["name"].as_str().unwrap_or_default().to_owned());
    if names.is_empty() { String::new() } else { format!("for<{}> ", names.join(", ")) }
}

/// Formats generic parameters and where clauses; the parameter of an `impl Trait` argument is shown only in
/// the argument.
pub(super) fn generics(value: &Value) -> String {
    let (parameters, conditions) = (parameters(value), conditions(value));
    format!("{parameters}{conditions}")
}

fn parameters(value: &Value) -> String {
    let written = |it: &&Value| it["kind"]["type"]["is_synthetic"] != true;
    let parameters: Vec<_> =
        value["params"].as_array().into_iter().flatten().filter(written).map(parameter).collect();
    if parameters.is_empty() { String::new() } else { format!("<{}>", parameters.join(", ")) }
}

fn parameter(value: &Value) -> String {
    let name = value["name"].as_str().unwrap_or_default();
    let kinds = &value["kind"];
    if let Some(constant) = kinds.get("const") {
        return format!("const {name}: {}", kind(&constant["type"]));
    }
    if let Some(lifetime) = kinds.get("lifetime") {
        let outlives = list(&lifetime["outlives"], |it| it.as_str().unwrap_or_default().to_owned());
        return if outlives.is_empty() {
            name.to_owned()
        } else {
            format!("{name}: {}", outlives.join(" + "))
        };
    }
    let bounds = bounds(&kinds["type"]["bounds"]);
    let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
    format!("{name}{bounds}{}", optional(" = ", &kinds["type"]["default"]))
}

fn conditions(value: &Value) -> String {
    let conditions = list(&value["where_predicates"], |it| {
        if let Some(bound) = it.get("bound_predicate") {
            return format!("{}: {}", kind(&bound["type"]), bounds(&bound["bounds"]));
        }
        if let Some(lifetime) = it.get("lifetime_predicate") {
            let outlives = list(&lifetime["outlives"], |it| it.as_str().unwrap_or_default().to_owned());
            return format!(
                "{}: {}",
                lifetime["lifetime"].as_str().unwrap_or_default(),
                outlives.join(" + ")
            );
        }
        let equal = &it["eq_predicate"];
        format!("{} == {}", kind(&equal["lhs"]), argument(&equal["rhs"]))
    });
    if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(", ")) }
}

fn header(value: &Value) -> String {
    let word = |key: &str, word: &'static str| if value[key] == true { word } else { "" };
    let abi = match &value["abi"] {
        Value::String(name) if name != "Rust" => format!("extern \"{name}\" "),
        Value::Object(named) => {
            named.keys().next().map(|name| format!("extern \"{name}\" ")).unwrap_or_default()
        }
        _ => String::new(),
    };
    [word("is_const", "const "), word("is_async", "async "), word("is_unsafe", "unsafe "), &abi].concat()
}

/// Formats a function under its path; of the argument names only `self` is shown.
pub(super) fn function(own: &str, inner: &Value) -> String {
    let inputs = list(&inner["sig"]["inputs"], |it| {
        let (name, shown) = (it[0].as_str().unwrap_or_default(), kind(&it[1]));
        match (name, shown.as_str()) {
            ("self", "Self") => "self".to_owned(),
            ("self", "&Self") => "&self".to_owned(),
            ("self", "&mut Self") => "&mut self".to_owned(),
            ("self", _) => format!("self: {shown}"),
            _ => shown,
        }
    });
    let (parameters, conditions) = (parameters(&inner["generics"]), conditions(&inner["generics"]));
    let output = optional(" -> ", &inner["sig"]["output"]);
    format!("{}fn {own}{parameters}({}){output}{conditions}", header(&inner["header"]), inputs.join(", "))
}

/// Formats `impl Trait for Type`.
pub(super) fn implementation(inner: &Value) -> String {
    let not = if inner["is_negative"] == true { "!" } else { "" };
    let (parameters, conditions) = (parameters(&inner["generics"]), conditions(&inner["generics"]));
    format!("impl{parameters} {not}{} for {}{conditions}", path(&inner["trait"]), kind(&inner["for"]))
}

fn list(value: &Value, one: impl Fn(&Value) -> String) -> Vec<String> {
    value.as_array().into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_written_as_in_rust() {
        let word = json!({ "primitive": "u8" });
        let angle = |args: Value| json!({ "angle_bracketed": { "args": args, "constraints": [] } });
        let named = |name: &str, args: Value| json!({ "resolved_path": { "path": name, "args": args } });
        for (want, value) in [
            ("u8", word.clone()),
            ("_", json!("infer")),
            ("[u8; 6]", json!({ "array": { "type": word, "len": "6" } })),
            (
                "&'a mut [u8]",
                json!({ "borrowed_ref": { "lifetime": "'a", "is_mutable": true, "type": { "slice": word } } }),
            ),
            ("*const u8", json!({ "raw_pointer": { "is_mutable": false, "type": word } })),
            ("(u8, T)", json!({ "tuple": [word, { "generic": "T" }] })),
            ("Vec<u8>", named("Vec", angle(json!([{ "type": word }])))),
            (
                "Fixed<'a, 4>",
                named("Fixed", angle(json!([{ "lifetime": "'a" }, { "const": { "expr": "4" } }]))),
            ),
            (
                "dyn Fn(u8) -> u8 + 'static",
                json!({ "dyn_trait": { "lifetime": "'static", "traits": [{ "generic_params": [], "trait": {
                    "path": "Fn", "args": { "parenthesized": { "inputs": [word], "output": word } },
                } }] } }),
            ),
            (
                "impl Iterator<Item = u8> + 'a",
                json!({ "impl_trait": [
                    { "trait_bound": { "modifier": "none", "generic_params": [], "trait": { "path": "Iterator", "args": {
                        "angle_bracketed": { "args": [], "constraints": [
                            { "name": "Item", "binding": { "equality": { "type": word } } },
                        ] },
                    } } } },
                    { "outlives": "'a" },
                ] }),
            ),
            (
                "<T as Own>::Part",
                json!({ "qualified_path": {
                    "name": "Part", "self_type": { "generic": "T" }, "trait": { "path": "Own" }, "args": null,
                } }),
            ),
        ] {
            assert_eq!(kind(&value), want);
        }
    }

    #[test]
    fn a_signature_has_its_conditions_and_not_its_names() {
        let inner = json!({
            "sig": {
                "inputs": [
                    ["self", { "borrowed_ref": { "lifetime": null, "is_mutable": false, "type": { "generic": "Self" } } }],
                    ["count", { "primitive": "usize" }],
                ],
                "output": { "generic": "T" },
            },
            "generics": {
                "params": [
                    { "name": "T", "kind": { "type": { "bounds": [], "default": null, "is_synthetic": false } } },
                    { "name": "impl Copy", "kind": { "type": { "bounds": [], "default": null, "is_synthetic": true } } },
                ],
                "where_predicates": [{ "bound_predicate": { "type": { "generic": "T" }, "bounds": [
                    { "trait_bound": { "modifier": "none", "generic_params": [], "trait": { "path": "Copy" } } },
                ] } }],
            },
            "header": { "is_const": false, "is_unsafe": true, "is_async": false, "abi": "Rust" },
        });
        assert_eq!(function("a::f", &inner), "unsafe fn a::f<T>(&self, usize) -> T where T: Copy");
    }
}
