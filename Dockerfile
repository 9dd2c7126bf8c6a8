# Two stages: build with the Rust toolchain, run in an image without shell or package manager.
#
#   docker build --build-arg AEM_PROXY_COMMIT="$(git rev-parse --short=12 HEAD)" -t aem-auth-proxy .
#
# The production image has no stand-ins, so no `demo`. With them:
#
#   docker build --target demo -t aem-auth-proxy:demo .
#
# Both base images by their tags, so that whoever builds gets their security updates without a change here. A release pins
# them by digest, with these arguments, and says which: see docs/release.md.
ARG BUILD_IMAGE=rust:1-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build

# The dependencies alone, under an empty program: this layer is built again only when Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY .ci/release .ci/release
RUN mkdir src \
    && echo 'fn main() {}' | tee build.rs > src/main.rs \
    && touch src/lib.rs \
    && .ci/release --no-default-features

# The program. cargo goes by the time of a file, and those from the context may be older than the empty ones.
COPY build.rs ./
COPY src src
ARG AEM_PROXY_COMMIT
RUN touch build.rs src/lib.rs src/main.rs \
    && .ci/release --no-default-features \
    && mkdir -p /image \
    && cp target/dist/release/aem-auth-proxy /image/

FROM build AS build-demo
RUN .ci/release \
    && mkdir -p /image/standins \
    && cp target/dist/release/aem-auth-proxy /image/

FROM ${RUN_IMAGE} AS run
ARG AEM_PROXY_COMMIT
LABEL org.opencontainers.image.title="aem-auth-proxy" \
      org.opencontainers.image.description="A local authenticating reverse proxy for Adobe Experience Manager as a Cloud Service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${AEM_PROXY_COMMIT}"
# `nonroot`, by number, so that Kubernetes can see that it is not root.
USER 65532:65532
# The proxy and the admin listener. Both are on loopback unless configured otherwise: a sidecar shares it with its app.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Live, not ready: an orchestrator that restarts on this shall not do so because IMS is away.
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s --retries=3 CMD ["/usr/local/bin/aem-auth-proxy", "health"]
ENTRYPOINT ["/usr/local/bin/aem-auth-proxy"]

FROM run AS demo
COPY --from=build-demo /image/aem-auth-proxy /usr/local/bin/aem-auth-proxy
# Where `demo --standins-only` writes: a named volume mounted here takes over the owner.
COPY --from=build-demo --chown=65532:65532 /image/standins /run/standins

# The last stage is what `docker build` makes without --target.
FROM run AS production
COPY --from=build /image/aem-auth-proxy /usr/local/bin/aem-auth-proxy
