/**
 * /healthz (the process works), /readyz (the node's network is programmed; 503 and the reasons otherwise) and /metrics.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WeftError } from '../base/errors.ts';
import { METRICS_CONTENT_TYPE, type MetricRegistry } from '../base/metrics.ts';

export interface Health {
  /** Empty: all is well. Otherwise what is not, one sentence each. */
  live(): string[];
  ready(): string[];
}

export interface HealthServer extends AsyncDisposable {
  readonly port: number;
}

/** @throws WEFT_BAD_CONFIG when the address cannot be listened on */
export async function serveHealth(
  address: string,
  port: number,
  health: Health,
  registry: MetricRegistry,
): Promise<HealthServer> {
  const server = createServer((request, response) => {
    const answer = (code: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(code, { 'content-type': type }).end(request.method === 'HEAD' ? undefined : text);
    };
    const check = (problems: string[]): void =>
      problems.length === 0 ? answer(200, 'ok\n') : answer(503, `${problems.join('\n')}\n`);
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'only GET\n');
    switch (new URL(request.url ?? '/', 'http://x').pathname) {
      case '/healthz':
      case '/livez':
        return check(health.live());
      case '/readyz':
        return check(health.ready());
      case '/metrics':
        void registry.text().then(
          (text) => answer(200, text, METRICS_CONTENT_TYPE),
          (error: unknown) => answer(500, `${String(error)}\n`),
        );
        return;
      default:
        return answer(404, 'there are /healthz, /readyz and /metrics\n');
    }
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new WeftError(
          'WEFT_BAD_CONFIG',
          `metrics: cannot listen on ${address} port ${port}: ${error.message}`,
          {
            cause: error,
          },
        ),
      ),
    );
    server.listen(port, address, resolve);
  });
  return { port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: () => closed(server) };
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
