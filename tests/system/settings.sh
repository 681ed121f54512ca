# What the guide leaves to the administrator: keys, rights and queues of the connectors that are not
# in the default files, and the secrets that the example's settings name.
for name in cssi112 external smpsql replication; do
    smpbus keys new $name
done
systemd-tmpfiles --create smpbus.conf
cat >> /etc/smpbus/permissions.toml <<'END'
[peers.cssi112]
consume = ["cssi112"]
[peers.smpsql]
consume = ["smpsql"]
[peers.replication]
consume = ["central"]
END
printf '\n[destinations.%s]\n' cssi112 smpsql central >> /etc/smpbus/routes.toml

# One partner is asked by name and TLS, and what it says is kept in memcached.
sed 's|^url = "http://127.0.0.1:8116"|url = "https://register.test:8116"\nca_file = "keys/documents.pem"|' \
    config/connectors.example.toml >> /etc/smpbus/smpbus.toml
cat >> /etc/smpbus/smpbus.toml <<'END'
[connectors.rmr.lookup]
server = "127.0.0.1:11211"
secret_file = "keys/lookup.secret"
END
echo 127.0.0.1 register.test >> /etc/hosts

cd /etc/smpbus
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=register.test \
    -addext subjectAltName=DNS:register.test -keyout keys/documents.key -out keys/documents.pem \
    2>/dev/null
openssl rand -hex 32 > keys/medevac.webhook
echo manager:secret > ats.password
echo smpbus:secret > smpsql.password
cp keys/documents.pem keys/region-ca.pem
cp keys/router.pub central.pub
chmod 600 keys/documents.key keys/medevac.webhook *.password
chmod 644 keys/*.pem
chown smpbus-external: keys/medevac.webhook
chown smpbus-ats: ats.password
chown smpbus-smpsql: smpsql.password
for door in "sys112 system112" "smp ambulance" "rmis rmis" "remd remd" "vimis vimis"; do
    smpbus token $door > /dev/null
done
# The signer's key is for two connectors: systemd gives it to each of them.
for name in remd vimis; do
    mkdir -p /etc/systemd/system/smpbus-connector@$name.service.d
    printf '[Service]\nLoadCredential=documents.key:/etc/smpbus/keys/documents.key\n' \
        > /etc/systemd/system/smpbus-connector@$name.service.d/signer.conf
done
systemctl daemon-reload
