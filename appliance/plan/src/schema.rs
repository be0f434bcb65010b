//! The JSON Schema (draft 2020-12) of the plan file, for editors; made from the shape table, published as
//! `schema/site.schema.json`.

use crate::shape::{Kind, Object, SITE};
use serde_json::{Map, Value, json};

/// The schema of `site.yaml`.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    define(&SITE, &mut definitions);
    let mut root = definitions.remove(&id(&SITE)).unwrap_or_default();
    if let Value::Object(map) = &mut root {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("Dayzero site plan"));
        map.insert("$defs".into(), Value::Object(definitions));
    }
    root
}

fn id(object: &Object) -> String {
    object.name.replace(' ', "_").to_lowercase()
}

fn define(object: &'static Object, definitions: &mut Map<String, Value>) {
    if definitions.contains_key(&id(object)) {
        return;
    }
    definitions.insert(id(object), Value::Null);
    let mut properties = Map::new();
    for field in object.fields {
        let mut schema = kind(field.kind, definitions);
        if let Value::Object(map) = &mut schema {
            map.insert("description".into(), json!(field.doc));
        }
        properties.insert(field.key.into(), schema);
    }
    let required: Vec<&str> =
        object.fields.iter().filter(|field| field.required).map(|field| field.key).collect();
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    definitions.insert(id(object), schema);
}

fn kind(kind_: Kind, definitions: &mut Map<String, Value>) -> Value {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    match kind_ {
        Kind::Text => json!({"type": ["string", "number"], "minLength": 1}),
        Kind::Name => text("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
        Kind::Mac => text("^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$|^[0-9A-Fa-f]{12}$"),
        Kind::Ipv4 => json!({"type": "string", "format": "ipv4"}),
        Kind::Ip => json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
        Kind::Cidr => text("^[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}$"),
        Kind::Cidr6 => text("^[0-9a-fA-F:]+/[0-9]{1,2}$"),
        Kind::Octets => text("^[ -~]{1,765}$"),
        Kind::Size => json!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]+ *(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$",
            "minimum": 0,
        }),
        Kind::Wwn => json!({"type": ["string", "integer"], "minLength": 16}),
        Kind::Sha256 => text("^[0-9a-fA-F]{64}$"),
        Kind::Uuid => text("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Number(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Kind::OneOf(words) => json!({"enum": words}),
        Kind::Object(object) => {
            define(object, definitions);
            json!({"$ref": format!("#/$defs/{}", id(object))})
        }
        Kind::List(inner) => json!({"type": "array", "items": kind(*inner, definitions)}),
    }
}
