use reqwest::RequestBuilder;

use super::{
    super::tests::{Fixture, aem, json_of},
    *,
};

fn ask(aem: &Fixture, method: &str, target: &str) -> RequestBuilder {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    aem.anonymous(method, target).bearer_auth(&aem.token)
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// As Adobe's upload client asks.
fn create(aem: &Fixture, path: &str) -> RequestBuilder {
    let folder = json!({"class": "assetFolder", "properties": {"jcr:title": "A title"}});
    aem.post(&format!("/api/assets/{path}")).json(&folder)
}

fn transfer(aem: &Fixture, method: &str, destination: &str) -> RequestBuilder {
    ask(aem, method, "/api/assets/surfing.jpg").header("X-Destination", destination)
}

fn change(method: &str, path: &str, destination: Option<&str>) -> AssetChange {
    let destination = destination.map(str::to_owned);
    AssetChange { method: method.to_owned(), path: path.to_owned(), destination }
}

#[tokio::test]
async fn a_folder_is_made_once_and_only_where_there_is_one() {
    let aem = aem().await;
    assert_eq!(status(create(&aem, "wknd/a%20b")).await, 201);
    assert_eq!(status(create(&aem, "wknd/a%20b")).await, 409);
    assert_eq!(status(create(&aem, "nowhere/x")).await, 500);
    let listing = json_of(aem.get("/api/assets/wknd.json")).await;
    let entity = &listing["entities"][0];
    assert_eq!(entity["properties"], json!({"name": "a b", "dc:title": "A title"}));
    let href = format!("http://{}/api/assets/wknd/a%20b.json", aem.server.addr());
    assert_eq!(entity["links"][0]["href"], href);
    assert_eq!(json_of(aem.get("/api/assets/wknd/a%20b.json")).await["properties"]["name"], "a b");
    assert_eq!(aem.switches.asset_changes(), [change("POST", "wknd/a b", None)]);
}

#[tokio::test]
async fn long_listings_have_pages_with_absolute_links() {
    let aem = aem().await;
    let page = json_of(aem.get("/api/assets.json?offset=1&limit=1")).await;
    assert_eq!(page["properties"]["srn:paging"], json!({"total": 3, "offset": 1, "limit": 1}));
    assert_eq!(page["entities"].as_array().unwrap().len(), 1);
    let origin = format!("http://{}", aem.server.addr());
    let at = |rel, offset| json!({"rel": [rel], "href": format!("{origin}/api/assets.json?offset={offset}&limit=1")});
    assert_eq!(page["links"], json!([at("self", 1), at("prev", 0), at("next", 2)]));
}

#[tokio::test]
async fn what_is_there_is_changed_and_deleted_and_what_is_not_is_missing() {
    let aem = aem().await;
    let titled = |method| {
        ask(&aem, method, "/api/assets/surfing.jpg").json(&json!({"properties": {"dc:title": method}}))
    };
    for method in ["PUT", "PATCH"] {
        assert_eq!(status(titled(method)).await, 200);
        let asset = json_of(aem.get("/api/assets/surfing.jpg.json")).await;
        assert_eq!(asset["properties"]["dc:title"], method);
    }
    let found = ask(&aem, "PROPFIND", "/api/assets/surfing.jpg").send().await.unwrap();
    assert_eq!(found.status(), 207);
    assert!(found.text().await.unwrap().contains("<D:multistatus"));
    for expected in [200, 404] {
        assert_eq!(status(ask(&aem, "DELETE", "/api/assets/surfing.jpg")).await, expected);
    }
    for method in ["GET", "PUT", "PROPFIND", "COPY"] {
        let request = ask(&aem, method, "/api/assets/nothing").header("X-Destination", "/api/assets/x");
        assert_eq!(status(request).await, 404, "{method}");
    }
    assert_eq!(status(ask(&aem, "LOCK", "/api/assets/wknd")).await, 405);
    let changes = ["PUT", "PATCH", "PROPFIND", "DELETE"].map(|method| change(method, "surfing.jpg", None));
    assert_eq!(aem.switches.asset_changes(), changes);
}

#[tokio::test]
async fn a_destination_is_a_path_or_on_aem_s_own_origin() {
    let aem = aem().await;
    let own = format!("http://{}/api/assets/wknd/b%20c.jpg", aem.server.addr());
    assert_eq!(status(transfer(&aem, "COPY", "/api/assets/wknd/a.jpg")).await, 201);
    assert_eq!(status(transfer(&aem, "COPY", &own)).await, 201);
    assert_eq!(status(transfer(&aem, "COPY", &own)).await, 204);
    assert_eq!(status(transfer(&aem, "COPY", &own).header("X-Overwrite", "F")).await, 412);
    assert_eq!(status(ask(&aem, "COPY", "/api/assets/surfing.jpg")).await, 412);
    for elsewhere in ["http://localhost:8080/api/assets/x", "/content/dam/x", "/api/assets/"] {
        assert_eq!(status(transfer(&aem, "MOVE", elsewhere)).await, 502, "{elsewhere}");
    }
    assert_eq!(status(transfer(&aem, "MOVE", "/api/assets/moved.jpg")).await, 201);
    for (path, expected) in [("surfing.jpg", 404), ("moved.jpg", 200), ("wknd/b%20c.jpg", 200)] {
        assert_eq!(status(aem.get(&format!("/api/assets/{path}.json"))).await, expected, "{path}");
    }
    let copied = change("COPY", "surfing.jpg", Some(&own));
    let moved = change("MOVE", "surfing.jpg", Some("/api/assets/moved.jpg"));
    assert_eq!(aem.switches.asset_changes()[1..], [copied.clone(), copied, moved]);
}

#[tokio::test]
async fn a_folder_takes_along_what_is_in_it() {
    let aem = aem().await;
    assert_eq!(status(create(&aem, "wknd/a")).await, 201);
    let moved = ask(&aem, "MOVE", "/api/assets/wknd").header("X-Destination", "/api/assets/next");
    assert_eq!(status(moved).await, 201);
    assert_eq!(status(aem.get("/api/assets/next/a.json")).await, 200);
    assert_eq!(status(aem.get("/api/assets/wknd/a.json")).await, 404);
    assert_eq!(status(ask(&aem, "DELETE", "/api/assets/next")).await, 200);
    assert_eq!(status(aem.get("/api/assets/next/a.json")).await, 404);
}
