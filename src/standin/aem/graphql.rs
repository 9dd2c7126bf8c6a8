//! GraphQL over a handful of content fragments: queries, pages of both kinds, persisted queries. Answers have all
//! fields, whichever were asked for; absolute URLs are on AEM's own origin.

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Path, Request},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode, header::CACHE_CONTROL};
use serde_json::{Map, Value, json};

use super::{Aem, origin};

mod arguments;

/// The endpoints of the product and of a configuration, persisted queries, and the list of those.
pub(super) fn routes() -> Router<Aem> {
    Router::new()
        .route("/content/graphql/global/endpoint.json", post(query))
        .route("/content/cq:graphql/{configuration}/endpoint.json", post(query))
        .route("/graphql/execute.json/{*query}", get(persisted_query).post(persisted_query))
        .route("/graphql/list.json", get(persisted_queries))
        .route("/graphql/list.json/{configuration}", get(persisted_queries))
}

async fn query(request: Request) -> Response {
    let origin = origin(&request);
    let asked = json_of(request).await;
    let Some(query) = asked["query"].as_str() else {
        return error("The request has no query");
    };
    let field = FIELDS.into_iter().find(|(name, _)| query.contains(name));
    let (name, field) = field.unwrap_or(FIELDS[0]);
    let arguments = arguments::of(query, name, &asked["variables"]);
    match arguments.and_then(|arguments| field(&adventures(&origin), &arguments)) {
        Some(content) => Json(json!({"data": {name: content}})).into_response(),
        None => error("Arguments that make no sense"),
    }
}

/// A persisted query, whose variables are matrix parameters in the path, or in the body of a POST. The path is answered
/// as it came.
async fn persisted_query(Path(path): Path<String>, request: Request) -> Response {
    let origin = origin(&request);
    let raw = request.uri().path().replacen("/graphql/execute.json/", "", 1);
    let variables = if *request.method() == Method::POST {
        json_of(request).await["variables"].as_object().cloned().unwrap_or_default()
    } else {
        matrix_parameters(&path)
    };
    let Some(list) = list(&adventures(&origin), &variables) else {
        return error("Variables that make no sense");
    };
    let data = json!({"persistedQuery": raw, "variables": variables, "adventureList": list});
    ([(CACHE_CONTROL, "max-age=60")], Json(json!({"data": data}))).into_response()
}

/// Numbers are numbers, all else is text.
fn matrix_parameters(path: &str) -> Map<String, Value> {
    let pairs = path.split(';').skip(1).filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| {
            (name.to_owned(), value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number)))
        })
        .collect()
}

async fn persisted_queries() -> Json<Value> {
    Json(json!([{
        "path": {
            "shortForm": "wknd/adventures",
            "longForm": "/wknd/settings/graphql/persistentQueries/adventures",
        },
        "data": {"query": "{adventureList{items{_path title price}}}"},
    }]))
}

async fn json_of(request: Request) -> Value {
    let body = to_bytes(request.into_body(), QUERY_MAX).await;
    body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

fn error(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"errors": [{"message": message}]}))).into_response()
}

type Field = fn(&[Value], &Map<String, Value>) -> Option<Value>;

/// As AEM derives them from a model that is called "adventure". The first one stands in for what is not known.
const FIELDS: [(&str, Field); 3] =
    [("adventureList", list), ("adventurePaginated", paginated), ("adventureByPath", by_path)];

/// Pages by `offset` and `limit`.
fn list(all: &[Value], arguments: &Map<String, Value>) -> Option<Value> {
    let offset = number(arguments, "offset", 0)?;
    let limit = number(arguments, "limit", all.len())?;
    Some(json!({"items": all.iter().skip(offset).take(limit).collect::<Vec<_>>()}))
}

/// Pages by cursor: `after` which one, and how many are the `first`.
fn paginated(all: &[Value], arguments: &Map<String, Value>) -> Option<Value> {
    let start = match arguments.get("after").and_then(Value::as_str) {
        None | Some("") => 0,
        Some(after) => all.iter().position(|node| cursor(node) == after)? + 1,
    };
    let first = number(arguments, "first", PAGE)?;
    let end = all.len().min(start.saturating_add(first));
    let edges: Vec<Value> =
        all[start..end].iter().map(|node| json!({"node": node, "cursor": cursor(node)})).collect();
    let cursor_of = |edge: Option<&Value>| edge.map_or(json!(""), |edge| edge["cursor"].clone());
    Some(json!({
        "pageInfo": {
            "startCursor": cursor_of(edges.first()),
            "endCursor": cursor_of(edges.last()),
            "hasNextPage": end < all.len(),
            "hasPreviousPage": start > 0,
        },
        "edges": edges,
    }))
}

fn by_path(all: &[Value], arguments: &Map<String, Value>) -> Option<Value> {
    let path = arguments.get("_path")?;
    Some(json!({"item": all.iter().find(|node| node["_path"] == *path)}))
}

fn number(arguments: &Map<String, Value>, name: &str, default: usize) -> Option<usize> {
    match arguments.get(name) {
        None => Some(default),
        Some(value) => value.as_u64().and_then(|number| usize::try_from(number).ok()),
    }
}

/// What a client must take as it is.
fn cursor(node: &Value) -> String {
    STANDARD.encode(node["_path"].as_str().unwrap_or_default())
}

fn adventures(origin: &str) -> Vec<Value> {
    ADVENTURES.iter().map(|(name, title, price)| adventure(origin, name, title, *price)).collect()
}

fn adventure(origin: &str, name: &str, title: &str, price: u32) -> Value {
    let image = format!("/content/dam/wknd/en/adventures/{name}/{name}.jpg");
    json!({
        "_path": format!("/content/dam/wknd/en/adventures/{name}"),
        "title": title,
        "price": price,
        "primaryImage": {
            "_path": image,
            "_authorUrl": format!("{origin}{image}"),
            "_publishUrl": format!("{origin}{image}"),
        },
    })
}

const ADVENTURES: [(&str, &str, u32); 5] = [
    ("surf-camp", "Surf camp", 980),
    ("ski-touring", "Ski touring", 1450),
    ("climbing", "Climbing in the Dolomites", 1100),
    ("cycling", "Cycling through Tuscany", 1250),
    ("whale-watching", "Whale watching", 640),
];
/// AEM's own, where nobody says how many.
const PAGE: usize = 100;
/// A query and its variables.
const QUERY_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Fixture, aem, json_of},
        *,
    };

    const ENDPOINT: &str = "/content/graphql/global/endpoint.json";

    async fn ask(aem: &Fixture, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables});
        json_of(aem.post(ENDPOINT).json(&body)).await["data"].clone()
    }

    fn titles(nodes: &Value) -> Vec<&str> {
        nodes.as_array().unwrap().iter().map(|node| node["title"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_query_is_answered_and_the_path_of_a_persisted_one_is_taken_as_it_is() {
        let aem = aem().await;
        let answer = json_of(aem.get("/graphql/execute.json/wknd/adventures%3Bprice%3D10;")).await;
        assert_eq!(answer["data"]["persistedQuery"], "wknd/adventures%3Bprice%3D10;");
        let data = ask(&aem, "{ adventureList { items { title } } }", Value::Null).await;
        assert_eq!(data["adventureList"]["items"].as_array().unwrap().len(), 5);
        let empty = aem.post(ENDPOINT).json(&json!({}));
        assert_eq!(empty.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn pages_follow_a_cursor_to_the_last_one() {
        let aem = aem().await;
        let query =
            "query($n: Int, $c: String) { adventurePaginated(first: $n, after: $c) { edges { cursor } } }";
        let (mut after, mut sizes) = (String::new(), Vec::new());
        loop {
            let data = ask(&aem, query, json!({"n": 2, "c": after})).await;
            let page = &data["adventurePaginated"];
            sizes.push(page["edges"].as_array().unwrap().len());
            assert_eq!(page["pageInfo"]["hasPreviousPage"], sizes.len() > 1);
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
            page["pageInfo"]["endCursor"].as_str().unwrap().clone_into(&mut after);
        }
        assert_eq!(sizes, [2, 2, 1]);
        let wrong = json!({"query": "{adventurePaginated(first:2,after:\"nowhere\"){edges{cursor}}}"});
        assert_eq!(aem.post(ENDPOINT).json(&wrong).send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_list_has_an_offset_and_a_limit_and_urls_of_aem_s_own() {
        let aem = aem().await;
        let data = ask(&aem, "{ adventureList(offset: 1, limit: 2) { items { title } } }", json!({})).await;
        let items = &data["adventureList"]["items"];
        assert_eq!(titles(items), ["Ski touring", "Climbing in the Dolomites"]);
        let image = &items[0]["primaryImage"];
        for url in ["_authorUrl", "_publishUrl"] {
            let expected = format!("http://{}{}", aem.server.addr(), image["_path"].as_str().unwrap());
            assert_eq!(image[url], expected);
        }
        let query =
            "{ adventureByPath(_path: \"/content/dam/wknd/en/adventures/cycling\") { item { title } } }";
        let data = ask(&aem, query, json!({})).await;
        assert_eq!(data["adventureByPath"]["item"]["price"], 1250);
    }

    #[tokio::test]
    async fn a_persisted_query_takes_variables_from_its_path_or_a_body() {
        let aem = aem().await;
        let path = "/graphql/execute.json/wknd/adventures";
        let by_path = json_of(aem.get(&format!("{path}%3Blimit%3D2%3Bactivity%3Dski%20tour;"))).await;
        let body = json!({"variables": {"limit": 2, "activity": "ski tour"}});
        let by_body = json_of(aem.post(path).json(&body)).await;
        for answer in [by_path, by_body] {
            assert_eq!(answer["data"]["variables"], body["variables"]);
            assert_eq!(titles(&answer["data"]["adventureList"]["items"]), ["Surf camp", "Ski touring"]);
        }
        let listed = json_of(aem.get("/graphql/list.json/wknd")).await;
        assert_eq!(listed[0]["path"]["shortForm"], "wknd/adventures");
    }
}
