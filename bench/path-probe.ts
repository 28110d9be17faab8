/** Measuring one path between two pods: throughput, request and response, new connections. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Scope } from './scope.ts';

const HOME = path.join(import.meta.dirname, '..');
const SOURCE = path.join(import.meta.dirname, 'net-probe.c');
const BINARY = path.join(HOME, 'build/net-probe');
const IPERF_PORT = 5201;
const ECHO_PORT = 7007;
const STARTED_MS = 5000;

export interface Endpoint {
  /** Path of its network namespace. */
  netns: string;
  address: string;
}

export type Measure = 'throughput' | 'rr' | 'connect';

export const MEASURES: ReadonlyArray<{ measure: Measure; title: string; unit: string }> = [
  { measure: 'throughput', title: 'TCP throughput', unit: 'Gb/s' },
  { measure: 'rr', title: 'request/response', unit: '1000/s' },
  { measure: 'connect', title: 'new connections', unit: '1000/s' },
];

/**
 * The client on the first CPU, the server on the second, for throughput: two ends of a bulk transfer work at the same time.
 * The ends of a ping-pong take turns, and share one CPU: what is measured then is what the path costs, not how long an idle
 * CPU takes to wake up.
 */
const CPU = { client: 0, server: 1, turns: 1 };

export function ensureProbe(): void {
  const built = statSync(BINARY, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (built > statSync(SOURCE).mtimeMs) return;
  mkdirSync(path.dirname(BINARY), { recursive: true });
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-o', BINARY, SOURCE], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}

const inside = (endpoint: Endpoint, cpu: number, argv: string[]): string[] => [
  ...['nsenter', `--net=${endpoint.netns}`, '--', 'taskset', '--cpu-list', String(cpu)],
  ...argv,
];

/** The servers of a pod; they run until the scope ends. */
export async function startServers(scope: Scope, endpoint: Endpoint): Promise<void> {
  scope.start(inside(endpoint, CPU.server, ['iperf3', '--server', '--port', String(IPERF_PORT)]), {
    stdio: 'ignore',
  });
  scope.start(inside(endpoint, CPU.turns, [BINARY, 'server', String(ECHO_PORT)]), { stdio: 'ignore' });
  await scope.until(`servers in ${endpoint.netns}`, STARTED_MS, async () => {
    const { stdout } = await scope.run(['nsenter', `--net=${endpoint.netns}`, 'ss', '-Htln']);
    return stdout.includes(`:${IPERF_PORT} `) && stdout.includes(`:${ECHO_PORT} `) ? true : undefined;
  });
}

/** In the unit of {@link MEASURES}. Throughput takes all of `seconds`, the others, which vary less, half of it. */
export async function measurePath(
  scope: Scope,
  measure: Measure,
  client: Endpoint,
  server: Endpoint,
  seconds: number,
): Promise<number> {
  const timeout = seconds * 3000 + 15_000;
  if (measure === 'throughput') {
    const { stdout } = await scope.run(
      inside(client, CPU.client, [
        ...['iperf3', '--client', server.address, '--port', String(IPERF_PORT), '--json'],
        ...['--time', String(Math.max(1, Math.round(seconds))), '--omit', '0', '--connect-timeout', '3000'],
      ]),
      { timeout },
    );
    const report = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
    return report.end.sum_received.bits_per_second / 1e9;
  }
  const { stdout } = await scope.run(
    inside(client, CPU.turns, [BINARY, measure, server.address, String(ECHO_PORT), String(seconds / 2)]),
    { timeout },
  );
  return Number(stdout) / 1000;
}
