# docker build -t mailonce . && docker run --read-only --tmpfs /tmp \
#   --cap-drop ALL --security-opt no-new-privileges -p 2525:2525 \
#   -v mailonce:/data -e MAILONCE_UPSTREAM__ADDRESS=smtp.example.com:587 mailonce
#
# Passwords and keys come in as files: mount them, and name them with
# MAILONCE_UPSTREAM__PASSWORD_FILE, MAILONCE_LISTENER__0__CERTIFICATE and
# MAILONCE_LISTENER__0__PRIVATE_KEY.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo.toml names files in these.
COPY benches benches
COPY tests tests
RUN cargo build --release --locked

FROM debian:bookworm-slim
# What the upstream's certificate is verified against.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# By number, so that a platform can see that it is not root.
RUN groupadd --gid 10001 mailonce \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin mailonce \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /build/target/release/mailonce /usr/local/bin/mailonce
COPY config/mailonce.toml /etc/mailonce.toml
USER 10001:10001
WORKDIR /data
VOLUME /data
# Inside the container everyone comes from its own network. Whoever publishes
# the port decides who reaches it.
ENV MAILONCE_LISTENER__0__ADDRESS=0.0.0.0:2525 \
    MAILONCE_LISTENER__0__ALLOW_FROM=127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16 \
    MAILONCE_STORE__PATH=/data/claims \
    MAILONCE_ADMIN__TOKEN_FILE=/data/admin.token
EXPOSE 2525
STOPSIGNAL SIGTERM
# Whether it is alive, not whether the upstream is: to start it anew would not
# bring that back.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9925 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ]"]
ENTRYPOINT ["mailonce"]
CMD ["serve", "--config", "/etc/mailonce.toml"]
