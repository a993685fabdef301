# docker build -t mailonce . && docker run -p 2525:2525 -v mailonce:/data \
#   -e MAILONCE_UPSTREAM__ADDRESS=smtp.example.com:25 mailonce
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
COPY tests tests
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --home-dir /data --create-home mailonce
COPY --from=build /build/target/release/mailonce /usr/local/bin/mailonce
COPY config/mailonce.toml /etc/mailonce.toml
USER mailonce
WORKDIR /data
VOLUME /data
# Inside the container everyone comes from its own network. Whoever publishes
# the port decides who reaches it.
ENV MAILONCE_LISTENER__0__ADDRESS=0.0.0.0:2525 \
    MAILONCE_LISTENER__0__ALLOW_FROM=127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16 \
    MAILONCE_STORE__PATH=/data/claims
EXPOSE 2525
STOPSIGNAL SIGTERM
ENTRYPOINT ["mailonce"]
CMD ["serve", "--config", "/etc/mailonce.toml"]
