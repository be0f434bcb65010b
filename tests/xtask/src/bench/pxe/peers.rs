//! The peers, as an operator would run them: Debian's packages, unpacked beside the system, in the foreground.

use super::net::Wire;
use super::ours::Files;
use super::process::{Groups, Server};
use crate::{packages, shell};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// H. Peter Anvin's server: forks for each transfer; no windowsize.
pub fn tftpd_hpa(groups: &Groups, wire: &Wire, files: &Files, work: &Path) -> Result<Server> {
    let program = packages::unpacked("tftpd-hpa")?.join("usr/sbin/in.tftpd");
    let address = format!("{}:69", wire.server);
    let args = ["--foreground", "--user", "root", "--address", &address, "--secure", &path(&files.root)];
    listening(start(groups, "tftpd-hpa", wire, &program, &args, work)?, wire, "udp", 69)
}

/// atftpd: a thread for each transfer, windowsize. As installed, since with `--maxthread 1500` a storm wedges it.
pub fn atftpd(groups: &Groups, wire: &Wire, files: &Files, work: &Path) -> Result<Server> {
    let program = packages::unpacked("atftpd")?.join("usr/sbin/atftpd");
    let address = wire.server.to_string();
    let root = path(&files.root);
    let args = [
        "--daemon",
        "--no-fork",
        "--logfile",
        "-",
        "--verbose=3",
        "--user",
        "root",
        "--group",
        "root",
        "--bind-address",
        &address,
        &root,
    ];
    listening(start(groups, "atftpd", wire, &program, &args, work)?, wire, "udp", 69)
}

/// dnsmasq: one process; no windowsize. Its limit of 50 transfers is raised, or a storm fails.
pub fn dnsmasq(groups: &Groups, wire: &Wire, files: &Files, work: &Path) -> Result<Server> {
    packages::install(&["dnsmasq-base"])?;
    let root = format!("--tftp-root={}", path(&files.root));
    let args = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--enable-tftp",
        &root,
        "--tftp-max=1500",
        "--log-facility=-",
        "--quiet-tftp",
        "--pid-file=",
    ];
    let server = start(groups, "dnsmasq", wire, Path::new("/usr/sbin/dnsmasq"), &args, work)?;
    listening(server, wire, "udp", 69)
}

/// nginx with sendfile, one worker a processor.
pub fn nginx(groups: &Groups, wire: &Wire, files: &Files, work: &Path) -> Result<Server> {
    let program = packages::unpacked("nginx")?.join("usr/sbin/nginx");
    let dir = work.join("nginx");
    fs::create_dir_all(&dir)?;
    // The certificate of a listener as ours has it: ECDSA on P-256. Ciphers as ours prefers them.
    let request = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=bench",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ];
    shell::read(Command::new("openssl").current_dir(&dir).args(request))?;
    let config = format!(
        "daemon off; user root; worker_processes auto; pid {dir}/pid; error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; sendfile_max_chunk 2m; keepalive_requests 1000000;\n\
         default_type application/octet-stream;\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
         uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.3;\n\
         ssl_prefer_server_ciphers on; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n\
         server {{ listen {address}:8080; listen {address}:8445 ssl; root {root}; }} }}\n",
        dir = path(&dir),
        address = wire.server,
        root = path(&files.root),
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    let args = ["-e", "stderr", "-p", &path(&dir), "-c", &path(&file)];
    listening(start(groups, "nginx", wire, &program, &args, work)?, wire, "tcp", 8080)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn start(
    groups: &Groups,
    name: &str,
    wire: &Wire,
    program: &Path,
    args: &[&str],
    work: &Path,
) -> Result<Server> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    Server::start(groups, name, &wire.namespace, program, &args, &work.join(format!("{name}.log")))
        .with_context(|| format!("peer {name}"))
}

fn listening(mut server: Server, wire: &Wire, kind: &str, port: u16) -> Result<Server> {
    server.wait_for_port(&wire.namespace, kind, port)?;
    Ok(server)
}
