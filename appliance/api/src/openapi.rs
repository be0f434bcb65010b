//! The OpenAPI 3.1 document, made from the table of routes and a table of schemas. A golden file and a test that
//! compares the schemas with real answers keep it true.

use crate::identity::Access;
use crate::routes::{self, Route};
use serde_json::{Map, Value, json};

/// One schema: its name, whether unknown fields are refused, and its fields with their types.
struct Schema(&'static str, Strict, &'static [(&'static str, &'static str)]);

/// Whether unknown fields are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    /// A request: they are.
    Yes,
    /// An answer: more fields may come.
    No,
}

use Strict::{No, Yes};

/// Types: a word of [`plain`], the name of another schema, `[type]` for a list; `?` at the end: may be null or absent.
const SCHEMAS: &[Schema] = &[
    Schema(
        "Health",
        No,
        &[
            ("status", "string"),
            ("version", "string?"),
            ("started", "timestamp?"),
            ("store", "StoreHealth?"),
            ("peak_memory", "integer?"),
        ],
    ),
    Schema(
        "StoreHealth",
        No,
        &[("clean", "boolean"), ("replayed", "integer"), ("open_ms", "integer"), ("revision", "integer")],
    ),
    Schema("LoginRequest", Yes, &[("user", "string"), ("password", "password")]),
    Schema("ClaimRequest", Yes, &[("code", "password"), ("password", "password")]),
    Schema("WhoAmI", No, &[("who", "string"), ("role", "role")]),
    Schema("ClaimCode", No, &[("claim", "password")]),
    Schema("Verified", No, &[("records", "integer"), ("bytes", "integer"), ("blobs", "integer")]),
    Schema("Login", Yes, &[("user", "string"), ("password", "password")]),
    Schema("ApplyRequest", Yes, &[("site", "Site"), ("credentials", "{Login}"), ("base", "sha256?")]),
    Schema("Applied", No, &[("hash", "sha256"), ("changed", "boolean"), ("text", "string")]),
    Schema(
        "PlanPreview",
        No,
        &[
            ("base", "sha256?"),
            ("new", "sha256"),
            ("empty", "boolean"),
            ("text", "string"),
            ("diff", "any"),
            ("consequences", "[string]"),
        ],
    ),
    Schema(
        "StatusView",
        No,
        &[
            ("site", "name?"),
            ("plan", "sha256?"),
            ("now", "timestamp"),
            ("racks", "[RackView]"),
            ("todo", "[Todo]"),
            ("pending", "[Pending]"),
            ("clusters", "[ClusterView]"),
            ("vms", "[Vm]"),
        ],
    ),
    Schema(
        "RackView",
        No,
        &[("name", "name"), ("pod", "name"), ("units", "integer"), ("hosts", "[HostSummary]")],
    ),
    Schema(
        "HostSummary",
        No,
        &[
            ("name", "name"),
            ("rack", "name"),
            ("u", "integer"),
            ("cluster", "name"),
            ("phase", "string"),
            ("health", "health"),
            ("detail", "string"),
            ("since", "timestamp"),
            ("deadline", "timestamp?"),
            ("progress", "Progress?"),
            ("met", "integer"),
        ],
    ),
    Schema("Progress", No, &[("what", "string"), ("done", "integer"), ("total", "integer")]),
    Schema(
        "Todo",
        No,
        &[
            ("host", "name?"),
            ("code", "string"),
            ("sentence", "string"),
            ("evidence", "[string]"),
            ("next_action", "string"),
            ("since", "timestamp"),
        ],
    ),
    Schema(
        "Pending",
        No,
        &[
            ("mac", "mac"),
            ("first", "timestamp"),
            ("last", "timestamp"),
            ("count", "integer"),
            ("said", "string"),
        ],
    ),
    Schema(
        "ClusterView",
        No,
        &[
            ("name", "name"),
            ("hypervisor", "string"),
            ("hosts", "integer"),
            ("joined", "[any]"),
            ("elected", "name?"),
            ("vms", "integer"),
        ],
    ),
    Schema(
        "HostView",
        No,
        &[
            ("summary", "HostSummary"),
            ("hypervisor", "string"),
            ("conditions", "[ConditionRecord]"),
            ("facts", "any"),
            ("timeline", "[Event]"),
            ("timeline_text", "[string]"),
        ],
    ),
    Schema(
        "ConditionRecord",
        No,
        &[("condition", "string"), ("state", "any"), ("since", "timestamp"), ("began", "timestamp?")],
    ),
    Schema(
        "Event",
        No,
        &[("at", "timestamp"), ("host", "name?"), ("mac", "mac?"), ("boot", "any?"), ("what", "any")],
    ),
    Schema("ConsentRequest", Yes, &[("serial", "string"), ("finding", "sha256")]),
    Schema("ProveRequest", Yes, &[("without_leg", "name?")]),
    Schema(
        "ProofReport",
        No,
        &[
            ("started", "timestamp"),
            ("ended", "timestamp"),
            ("trials", "[Trial]"),
            ("refused", "string?"),
            ("held", "boolean"),
        ],
    ),
    Schema(
        "Trial",
        No,
        &[
            ("path", "name"),
            ("how", "string"),
            ("probe", "string"),
            ("gap", "milliseconds"),
            ("bound", "milliseconds"),
            ("bound_is", "string"),
            ("sent", "integer"),
            ("lost", "integer"),
            ("wrong_blocks", "integer"),
            ("read_back", "integer"),
            ("recovered", "milliseconds?"),
            ("held", "boolean"),
        ],
    ),
    Schema(
        "WhyView",
        No,
        &[
            ("subject", "string"),
            ("standing", "string"),
            ("findings", "[WhyFinding]"),
            ("events", "[Event]"),
            ("text", "[string]"),
        ],
    ),
    Schema(
        "WhyFinding",
        No,
        &[
            ("rule", "string"),
            ("hop", "string"),
            ("sentence", "string"),
            ("evidence", "[string]"),
            ("next_action", "string"),
        ],
    ),
    Schema("DoctorRequest", Yes, &[("site", "Site"), ("listen_only", "integer?")]),
    Schema(
        "DoctorFinding",
        No,
        &[
            ("check", "string"),
            ("severity", "severity"),
            ("interface", "string?"),
            ("found", "string"),
            ("action", "string"),
        ],
    ),
    Schema(
        "VmRequest",
        Yes,
        &[("name", "name"), ("offering", "name"), ("template", "name"), ("cluster", "name?")],
    ),
    Schema(
        "Vm",
        No,
        &[
            ("name", "name"),
            ("offering", "name"),
            ("template", "name"),
            ("cluster", "name"),
            ("host", "name?"),
            ("why", "string"),
            ("mac", "mac"),
            ("address", "string?"),
            ("volume", "any?"),
            ("state", "string"),
            ("detail", "string"),
            ("since", "timestamp"),
            ("console", "[string]"),
        ],
    ),
    Schema(
        "Problem",
        No,
        &[
            ("type", "string"),
            ("title", "string"),
            ("status", "integer"),
            ("detail", "string"),
            ("retry_after", "integer?"),
        ],
    ),
];

fn plain(word: &str) -> Option<Value> {
    Some(match word {
        "any" => json!({}),
        "string" | "boolean" => json!({ "type": word }),
        "integer" => json!({ "type": "integer", "minimum": 0 }),
        "password" => json!({ "type": "string", "format": "password" }),
        "timestamp" => {
            json!({ "type": "integer", "minimum": 0, "description": "Milliseconds since 1970-01-01 UTC." })
        }
        "milliseconds" => json!({ "type": "integer", "minimum": 0, "description": "Milliseconds." }),
        "name" => json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }),
        "sha256" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        "mac" => json!({ "type": "string", "pattern": "^([0-9a-f]{2}:){5}[0-9a-f]{2}$" }),
        "role" => json!({ "type": "string", "enum": ["viewer", "operator", "admin"] }),
        "severity" => json!({ "type": "string", "enum": ["good", "warning", "fault"] }),
        "health" => json!({ "type": "string", "enum": ["working", "failed", "ready", "lost"] }),
        _ => return None,
    })
}

fn inner(word: &str, open: char, close: char) -> Option<&str> {
    word.strip_prefix(open)?.strip_suffix(close)
}

fn of_type(word: &str) -> Value {
    if let Some(word) = word.strip_suffix('?') {
        return json!({ "anyOf": [of_type(word), { "type": "null" }] });
    }
    if let Some(item) = inner(word, '[', ']') {
        return json!({ "type": "array", "items": of_type(item) });
    }
    if let Some(value) = inner(word, '{', '}') {
        return json!({ "type": "object", "additionalProperties": of_type(value) });
    }
    plain(word).unwrap_or_else(|| json!({ "$ref": format!("#/components/schemas/{word}") }))
}

fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for Schema(name, strict, fields) in SCHEMAS {
        let properties: Map<String, Value> =
            fields.iter().map(|(field, word)| ((*field).to_owned(), of_type(word))).collect();
        let required: Vec<&str> = fields
            .iter()
            .filter(|(_, word)| !word.ends_with('?') && !word.starts_with('{'))
            .map(|(field, _)| *field)
            .collect();
        let mut schema = json!({ "type": "object", "properties": properties, "required": required });
        if *strict == Yes {
            schema["additionalProperties"] = json!(false);
        }
        all.insert((*name).to_owned(), schema);
    }
    let plan = "The site plan as JSON. Its own schema is what `dayzero plan schema` prints.";
    all.insert("Site".to_owned(), json!({ "type": "object", "description": plan }));
    all.insert("OpenApi".to_owned(), json!({ "type": "object" }));
    all.insert("Pcapng".to_owned(), json!({ "type": "string", "format": "binary" }));
    all.insert("Vms".to_owned(), of_type("[Vm]"));
    all.insert("HostSummaries".to_owned(), of_type("[HostSummary]"));
    all.insert("DoctorFindings".to_owned(), of_type("[DoctorFinding]"));
    all.insert("BmcCredentials".to_owned(), of_type("[Login]"));
    all
}

fn operation(route: &Route) -> Value {
    let refer = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let needs = match route.access {
        Access::Open => "nobody in particular".to_owned(),
        Access::Role(role) => format!("the role {}", format!("{role:?}").to_lowercase()),
        Access::Machine => "the Unix socket".to_owned(),
    };
    let good = match (route.path, route.answer) {
        (_, "") => json!({ "204": { "description": "Done." } }),
        ("/v1/events", name) => {
            json!({ "200": { "description": "A stream of `event: timeline`.", "content": { "text/event-stream": { "schema": refer(name) } } } })
        }
        ("/v1/pcap/{subject}", name) => {
            json!({ "200": { "description": "A pcapng file.", "content": { "application/x-pcapng": { "schema": refer(name) } } } })
        }
        ("/v1/vms", name) if route.method == "POST" => {
            json!({ "201": { "description": "Accepted.", "content": { "application/json": { "schema": refer(name) } } } })
        }
        (_, name) => {
            json!({ "200": { "description": "The answer.", "content": { "application/json": { "schema": refer(name) } } } })
        }
    };
    let problem = |what: &str| json!({ "description": what, "content": { "application/problem+json": { "schema": refer("Problem") } } });
    let mut responses = good;
    responses["4XX"] = problem("The asker must change something.");
    responses["5XX"] = problem("The system failed.");
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.does,
        "description": format!("Needs {needs}."),
        "responses": responses,
    });
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| inner(part, '{', '}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if operation_id(route) == "get_hosts_host" {
        let schema = of_type("integer");
        parameters.push(json!({ "name": "events", "in": "query", "description": "How many of the last events.", "schema": schema }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if !route.body.is_empty() {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": refer(route.body) } } });
    }
    if route.access == Access::Open {
        operation["security"] = json!([]);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let parts = route.path.trim_start_matches("/v1/").split('/').map(|part| part.trim_matches(['{', '}']));
    let path: Vec<String> = parts.map(|part| part.replace(['.', '-'], "_")).collect();
    format!("{}_{}", route.method.to_lowercase(), path.join("_"))
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Dayzero",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "description": "The appliance's own API. Operators: HTTPS with a session cookie; what changes state also needs an `Origin` header of the same address. The Unix socket: peer credentials.",
        },
        "paths": paths,
        "security": [{ "session": [] }],
        "components": {
            "securitySchemes": { "session": { "type": "apiKey", "in": "cookie", "name": crate::rest::session::COOKIE } },
            "schemas": schemas(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Fake};
    use dayzero_control::{DoctorRequest, Service};
    use dayzero_model::site::Site;
    use std::path::Path;

    fn lab() -> Site {
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plan/examples/lab.yaml");
        dayzero_plan::load(&plan).unwrap().0
    }

    fn compare(name: &str, value: &Value) {
        let fields =
            SCHEMAS.iter().find(|schema| schema.0 == name).unwrap_or_else(|| panic!("no schema {name}")).2;
        let object = value.as_object().unwrap_or_else(|| panic!("{name} is {value}"));
        let known: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
        let unknown: Vec<_> = object.keys().filter(|key| !known.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "{name}: the answer has {unknown:?}, which the schema does not know");
        for (field, word) in fields {
            let found = object.get(*field).unwrap_or(&Value::Null);
            conform(&format!("{name}.{field}"), word, found);
        }
    }

    fn conform(place: &str, word: &str, value: &Value) {
        match word.strip_suffix('?') {
            Some(_) if value.is_null() => return,
            Some(word) => return conform(place, word, value),
            None => {}
        }
        if let Some(item) = inner(word, '[', ']') {
            return value
                .as_array()
                .unwrap_or_else(|| panic!("{place}"))
                .iter()
                .for_each(|one| conform(place, item, one));
        }
        match word {
            "any" => {}
            "integer" | "timestamp" | "milliseconds" => assert!(value.is_u64(), "{place} is {value}"),
            "boolean" => assert!(value.is_boolean(), "{place} is {value}"),
            _ if plain(word).is_some() => assert!(value.is_string(), "{place} is {value}"),
            name => compare(name, value),
        }
    }

    #[tokio::test]
    async fn schemas_say_what_answers_are() {
        let fake = Fake::default();
        let shown = |value: &dyn erased::Shown| value.shown();
        compare("StatusView", &shown(&fake.status().await.unwrap()));
        let host = fake.host(&"host2".parse().unwrap(), 10).await.unwrap();
        compare("HostView", &shown(&host));
        compare("ProofReport", &shown(&host.facts.proof.unwrap()));
        compare("WhyView", &shown(&fake.why("host2").await.unwrap()));
        let request = DoctorRequest { site: lab(), listen_only: None };
        for finding in fake.doctor(request).await.unwrap() {
            compare("DoctorFinding", &shown(&finding));
        }
        compare("Vm", &shown(&fake::status().vms[0]));
    }

    mod erased {
        pub(super) trait Shown {
            fn shown(&self) -> serde_json::Value;
        }
        impl<T: serde::Serialize> Shown for T {
            fn shown(&self) -> serde_json::Value {
                serde_json::to_value(self).unwrap()
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_id() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name} is not defined");
        }
        let mut ids: Vec<String> = routes::all().iter().map(operation_id).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn the_document_is_this() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&document()).unwrap());
    }
}
