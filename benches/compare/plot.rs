//! A picture of the results: bars of CPU time for a request. SVG without scripts, readable on light and on dark.

use crate::{
    peers::Proxy,
    report,
    scenarios::{Sample, figures, median},
};

/// The bars of these scenarios; none where nothing was measured.
pub fn cpu(samples: &[Sample], scenarios: &[(&str, &str)]) -> Option<String> {
    let mut bars = Vec::new();
    for (group, (scenario, _)) in scenarios.iter().enumerate() {
        for proxy in Proxy::ALL {
            let figures = report::figures_of(samples, scenario, proxy.name(), figures::CPU);
            if !figures.is_empty() {
                bars.push((group, proxy, median(&figures)));
            }
        }
    }
    let longest = bars.iter().map(|(.., cpu)| *cpu).reduce(f64::max)?;
    let mut body = String::new();
    let (mut y, mut last_group) = (TITLE, None);
    for (group, proxy, cpu) in bars {
        if last_group != Some(group) {
            y += GROUP_GAP;
            body.push_str(&format!(
                "<text class=\"group\" x=\"0\" y=\"{y:.0}\">{}</text>\n",
                scenarios[group].1
            ));
            y += GROUP_GAP / 2.0;
            last_group = Some(group);
        }
        let width = (cpu / longest * BAR_WIDTH).max(1.0);
        let middle = y + BAR / 2.0;
        body.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{middle:.0}\" class=\"name\">{}</text>\n\
             <rect class=\"{}\" x=\"{NAMES:.0}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR:.0}\" rx=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{middle:.0}\" class=\"figure\">{cpu:.1}</text>\n",
            NAMES - 8.0,
            label(proxy),
            class(proxy),
            NAMES + width + 6.0,
        ));
        y += BAR + BAR_GAP;
    }
    let (width, height) = (NAMES + BAR_WIDTH + FIGURES, y + BAR_GAP);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"CPU time of the proxy for one request\">\n\
         <style>{STYLE}</style>\n\
         <text class=\"title\" x=\"0\" y=\"16\">CPU time of the proxy for one request, in microseconds (less is better)</text>\n\
         {body}</svg>\n"
    ))
}

fn label(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::Ours => "aem-auth-proxy",
        Proxy::Nginx => "nginx",
        Proxy::Haproxy => "HAProxy",
        Proxy::Envoy => "Envoy",
        Proxy::Relay => "blind relay (no TLS)",
    }
}

fn class(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::Ours => "ours",
        Proxy::Relay => "floor",
        _ => "peer",
    }
}

/// The background is the page's, so every colour has to do on both; the text's changes with the page.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f;dominant-baseline:central}\
    .title,.group{font-weight:600;dominant-baseline:auto}\
    .name{text-anchor:end}\
    .ours{fill:#d9480f}.peer{fill:#7d8590}.floor{fill:none;stroke:#7d8590;stroke-dasharray:4 3}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#ff922b}}";

const TITLE: f64 = 16.0;
const GROUP_GAP: f64 = 26.0;
const BAR: f64 = 20.0;
const BAR_GAP: f64 = 6.0;
/// The width of the names before the bars.
const NAMES: f64 = 150.0;
const BAR_WIDTH: f64 = 460.0;
/// The width of the figures behind the bars.
const FIGURES: f64 = 60.0;
