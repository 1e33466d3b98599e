/** nginx in two roles: the mock upstream, which is fast enough not to be the limit, and the proxy to compare with. */

import { writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { chatAnswer } from "./bodies.ts";
import { benchFolder, freePort, start, type Started, waitForPort } from "./processes.ts";
import { tools } from "./tools.ts";

/** The longest text that nginx takes as one parameter is 4,096 bytes. */
const PARAMETER_CHARS_MAX = 4000;

async function startNginx(name: string, core: number, port: number, http: string): Promise<Started> {
  const { nginx } = await tools("nginx", "taskset");
  const folder = benchFolder();
  const user = process.getuid?.() === 0 ? `user ${userInfo().username};` : "";
  const temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(" ");
  const conf = `${user} worker_processes 1; pid ${folder}/nginx.pid; error_log stderr crit; worker_rlimit_nofile 20000;
events { worker_connections 16384; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 64m;
client_body_buffer_size 256k; ${temp}
${http}
}
`;
  const file = join(folder, "nginx.conf");
  writeFileSync(file, conf);
  const started = start(name, nginx, ["-c", file, "-p", folder, "-g", "daemon off;"], { core });
  await waitForPort(started, port);
  return started;
}

export interface NginxServer {
  readonly process: Started;
  readonly port: number;
}

/** Answers every call below `/<kb>k/` with a chat completion of about so many KB. */
export async function startMockUpstream(core: number, sizesKb: readonly number[]): Promise<NginxServer> {
  const port = await freePort();
  const locations = sizesKb.map((kb) => {
    const text = chatAnswer(kb);
    const parts = [];
    for (let at = 0; at < text.length; at += PARAMETER_CHARS_MAX) parts.push(text.slice(at, at + PARAMETER_CHARS_MAX));
    const sets = parts.map((part, index) => `set $part${kb}_${index} '${part}';`).join("\n");
    return `location /${kb}k/ { ${sets}\nreturn 200 "${parts.map((_, index) => `\${part${kb}_${index}}`).join("")}"; }`;
  });
  const http = `default_type application/json;
server { listen 127.0.0.1:${port} backlog=4096; ${locations.join("\n")} }`;
  return { process: await startNginx("the mock upstream", core, port, http), port };
}

/** A plain reverse proxy with kept connections to the upstream. `buffering: false` is how one proxies SSE. */
export async function startNginxProxy(
  core: number,
  upstreamPort: number,
  { buffering }: { buffering: boolean },
): Promise<NginxServer> {
  const port = await freePort();
  const http = `upstream mock { server 127.0.0.1:${upstreamPort}; keepalive 4096; keepalive_requests 1000000000; }
server { listen 127.0.0.1:${port} backlog=4096;
location / { proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_buffers 16 8k; proxy_read_timeout 600s; proxy_buffering ${buffering ? "on" : "off"}; } }`;
  return { process: await startNginx("nginx as proxy", core, port, http), port };
}
