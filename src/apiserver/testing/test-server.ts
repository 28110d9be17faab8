/** A server on loopback in a folder of its own, and a client that speaks to it: for tests only. */
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../../base/log.ts';
import { ADMIN, type ClientIdentity, issueClient, type KeyPair, writeKubeconfig } from '../pki.ts';
import { type ApiServer, type ApiServerOptions, startApiServer } from '../server.ts';

export interface Answer {
  code: number;
  headers: NodeJS.Dict<string | string[]>;
  text: string;
  /** The text as JSON; undefined when it is none. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers freely.
  json: any;
}

export interface RequestOptions {
  body?: unknown;
  type?: string;
  accept?: string;
  headers?: Record<string, string>;
}

/** A watch as it comes in. */
export interface TestWatch {
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events freely.
  events: any[];
  ended: boolean;
  /** Resolves when so many events are there; rejects after 5 s. */
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  until(count: number): Promise<any[]>;
  close(): void;
}

export class TestClient {
  readonly #url: string;
  readonly #agent: Agent;

  constructor(url: string, ca: string, pair?: KeyPair) {
    this.#url = url;
    this.#agent = new Agent({ keepAlive: true, ca, ...(pair && { cert: pair.cert, key: pair.key }) });
  }

  close(): void {
    this.#agent.destroy();
  }

  send(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
    const { body } = options;
    const payload =
      body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const outgoing = request(this.#url + path, {
        method,
        agent: this.#agent,
        headers: {
          ...(options.accept && { accept: options.accept }),
          ...(payload !== undefined && {
            'content-type': options.type ?? 'application/json',
            // Node sends none for DELETE by itself.
            'content-length': Buffer.byteLength(payload),
          }),
          ...options.headers,
        },
      });
      outgoing.once('error', reject);
      outgoing.once('response', (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.once('error', reject);
        response.once('end', () => {
          let json: unknown;
          try {
            json = JSON.parse(text);
          } catch {
            json = undefined;
          }
          resolve({ code: response.statusCode ?? 0, headers: response.headers, text, json });
        });
      });
      outgoing.end(payload);
    });
  }

  get(path: string, accept?: string): Promise<Answer> {
    return this.send('GET', path, accept ? { accept } : {});
  }

  post(path: string, body: unknown): Promise<Answer> {
    return this.send('POST', path, { body });
  }

  patch(path: string, body: unknown, kind: 'json' | 'merge' | 'strategic-merge' = 'merge'): Promise<Answer> {
    return this.send('PATCH', path, { body, type: `application/${kind}-patch+json` });
  }

  watch(path: string, accept?: string): Promise<TestWatch> {
    return new Promise((resolve, reject) => {
      const outgoing = request(this.#url + path, { agent: this.#agent, headers: accept ? { accept } : {} });
      outgoing.once('error', reject);
      outgoing.once('response', (response) => {
        let rest = '';
        const watch: TestWatch = {
          events: [],
          ended: false,
          async until(count) {
            const deadline = Date.now() + 5000;
            while (watch.events.length < count) {
              if (Date.now() > deadline)
                throw new Error(
                  `${watch.events.length} of ${count} events after 5 s: ${JSON.stringify(watch.events)}`,
                );
              await new Promise((r) => setTimeout(r, 5));
            }
            return watch.events;
          },
          close: () => outgoing.destroy(),
        };
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() as string;
          watch.events.push(...lines.map((l) => JSON.parse(l)));
        });
        response.once('close', () => {
          watch.ended = true;
        });
        response.on('error', () => {});
        outgoing.on('error', () => {});
        resolve(watch);
      });
      outgoing.end();
    });
  }
}

export interface TestServer {
  dir: string;
  server: ApiServer;
  admin: TestClient;
  kubeconfig: string;
  /** A client with a certificate of its own; null: without one. */
  client(identity: ClientIdentity | null): Promise<TestClient>;
  close(): Promise<void>;
}

export async function startTestServer(options: Partial<ApiServerOptions> = {}): Promise<TestServer> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-apiserver-'));
  const server = await startApiServer({
    dataDir: dir,
    listen: [{ host: '127.0.0.1', port: 0 }],
    advertise: [],
    logger: silentLogger,
    ...options,
  });
  const clients: TestClient[] = [];
  const connect = async (identity: ClientIdentity | null): Promise<TestClient> => {
    const pair = identity ? await issueClient(server.pkiDir, identity) : undefined;
    const client = new TestClient(server.url, server.ca, pair);
    clients.push(client);
    return client;
  };
  const kubeconfig = join(dir, 'kubeconfig');
  writeKubeconfig(kubeconfig, {
    server: server.url,
    ca: server.ca,
    ...(await issueClient(server.pkiDir, ADMIN)),
  });
  return {
    dir,
    server,
    admin: await connect(ADMIN),
    kubeconfig,
    client: connect,
    async close() {
      for (const client of clients) client.close();
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** A pod that passes validation. */
export const testPod = (name: string, extra: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: 'test' } },
  spec: { containers: [{ name: 'c', image: 'agnhost' }] },
  ...extra,
});
