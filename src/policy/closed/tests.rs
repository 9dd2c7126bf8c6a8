
use super::*;

#[test]
fn consoles_are_closed_and_what_is_beside_them_is_not() {
    for (path, closed) in [
        ("/crx", true),
        ("/crx/de/index.jsp", true),
        ("/crxde", true),
        ("/crxs", false),
        ("/ crx/de", true),
        ("/ ", false),
        ("/system/console", true),
        ("/system/console.html/x", true),
        ("/SYSTEM/Console/bundles.json", true),
        ("/system/consoles", false),
        ("/system/sling/info.sessionInfo.json", false),
        ("/bin/querybuilder.json", true),
        ("/bin/querybuilder.feed.xml", true),
        ("/bin/wcm/search/gql.servlet.json", true),
        ("/bin/wcm/search", false),
        ("/bin/app", false),
        ("/etc/packages/my_packages/x.zip", true),
        ("/etc.clientlibs/app/site.js", false),
        ("/libs/granite/security/post/authorizables", true),
        ("/libs/granite/security/currentuser.json", false),
        ("/libs/granite/csrf/token.json", false),
        ("/mnt/overlay/granite/security/content/useradmin.html", true),
        ("/mnt/override/libs/crx/x", true),
        ("/mnt/overlay/dam/gui/content/assets.html", false),
        ("/apps/granite/backup", true),
        ("/apps/site/clientlib.js", false),
        ("/content.query.json", true),
        ("/home", true),
        ("/home.json", true),
        ("/Home/users/a/admin/profile.json", true),
        ("/homes", false),
        ("/content/home", false),
        ("/jcr:system/jcr:versionStorage.json", true),
        ("/_jcr_system.json", true),
        ("/oak:index/uuid.json", true),
        ("/rep:policy.json", true),
        ("/_rep_security", true),
        ("/_jcr_content", false),
        ("/server/default/jcr:root", true),
        ("/servers", false),
        ("/services/accesstoken/verify", true),
        ("/services/wknd", false),
        ("/libs/replication/treeactivation.html", true),
        ("/libs/dam/cloud/proxy.json", true),
        ("/apps/dam/cloud/proxy.json", true),
        ("/libs/sling/servlet/default/GET.servlet", true),
        ("/mnt/overlay/x/json.GET.servlet.css", true),
        ("/content/dam/GET.servlet", false),
        ("/.cqactions.html", true),
        ("/content/dam.modifyAce.html", true),
        ("/etc/cloudservices/salesforce/jcr:content.json", true),
        ("/graphql/execute.json/s/q;file=report.query.json", false),
        ("/bin/crxde/logs", true),
        ("/etc.infinity.json", true),
        ("/etc.4.json", true),
        ("/etc.xml", true),
        ("/etc/.infinity.json", true),
        ("/.5.json", true),
        ("/LIBS.infinity.json", true),
        ("/libs/granite/security.infinity.json", true),
        ("/mnt/overlay/granite.5.json", true),
        ("/etc.json", false),
        ("/etc/designs.infinity.json", false),
        ("/libs/granite/core.infinity.json", false),
        ("/content.infinity.json", false),
        ("/content/etc.infinity.json", false),
        ("/content/x.queryset.json", false),
        ("/content/x.json/system/console", false),
        ("/", false),
    ] {
        assert_eq!(covers("GET", path.as_bytes()), closed, "{path}");
        let is_known = |name: &&str| path.to_ascii_lowercase().starts_with(name);
        let by_words = closed && !["/home", "/_rep"].iter().any(is_known) || path.contains("/users");
        assert!(!by_words || may_cover("GET", path.as_bytes()), "{path}");
    }
    assert!(covers("POST", b"/apps/site/components/page"));
    assert!(covers("MOVE", b"/mnt/override/apps/site"));
    assert!(!covers("POST", b"/libs/dam/x") && covers("DELETE", b"/libs/dam/x"));
    assert!(!covers("POST", b"/content/dam/x.query.jpg.initiateUpload.json"));
}
