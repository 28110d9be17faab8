/**
 * Probes as kubelet does them, from the node's own network: the sockets are made in the node's namespace, so that what answers a
 * probe would answer a kubelet there. No process per probe, but for `exec`.
 *
 * Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/, k8s.io/kubernetes pkg/kubelet/prober
 */
import { execFile } from 'node:child_process';
import { request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import type { Container, Probe } from '../../api/types.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';

export interface ProbeTarget {
  /** The pod's first address. */
  ip: string;
  container: Container;
  /** Connect from the node's network namespace. */
  connect(ip: string, port: number): Promise<Socket>;
  /** The command prefix that enters the container; undefined when it does not run. */
  enter(): string[] | undefined;
}

export interface ProbeOutcome {
  ok: boolean;
  /** Why not. */
  message: string;
}

/** One try; never throws, and ends within the probe's timeout (default 1 s). */
export async function probeOnce(probe: Probe, target: ProbeTarget): Promise<ProbeOutcome> {
  const timeout = (probe.timeoutSeconds || 1) * 1000;
  try {
    if (probe.httpGet) return await probeHttp(probe.httpGet, target, timeout);
    if (probe.tcpSocket) return await probeTcp(probe.tcpSocket, target, timeout);
    if (probe.exec) return await probeExec(probe.exec.command, target, timeout);
    return { ok: false, message: 'a lab knows the probes httpGet, tcpSocket and exec' };
  } catch (error) {
    return { ok: false, message: messageOf(error) };
  }
}

/** The connection was begun elsewhere, so that its refusal comes as a failed write. */
function inWords(error: Error): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const words: Record<string, string> = {
    ECONNREFUSED: 'connection refused',
    ECONNRESET: 'connection reset by peer',
    EHOSTUNREACH: 'no route to host',
    ENETUNREACH: 'network is unreachable',
    ETIMEDOUT: 'connection timed out',
  };
  return words[code] ?? error.message;
}

/** A number, or the name of one of the container's ports. @throws Error */
export function probePort(port: number | string, container: Container): number {
  const found =
    typeof port === 'number' || /^\d+$/.test(port)
      ? Number(port)
      : container.ports?.find(({ name }) => name === port)?.containerPort;
  if (found === undefined || found < 1 || found > 65_535)
    throw new Error(`the container has no port ${port}`);
  return found;
}

async function probeHttp(
  get: NonNullable<Probe['httpGet']>,
  target: ProbeTarget,
  timeout: number,
): Promise<ProbeOutcome> {
  const host = get.host || target.ip;
  const port = probePort(get.port, target.container);
  const url = `${get.scheme === 'HTTPS' ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}${get.path || '/'}`;
  const started = Date.now();
  let socket: Socket = await target.connect(host, port);
  // An error may come before anyone listens.
  socket.on('error', () => {});
  try {
    if (get.scheme === 'HTTPS') {
      const { connect } = await import('node:tls');
      socket = connect({ socket, rejectUnauthorized: false });
    }
    return await new Promise((resolve) => {
      const outgoing = httpRequest(
        {
          host,
          port,
          path: get.path || '/',
          headers: { 'user-agent': 'kube-probe/1.32', accept: '*/*', connection: 'close' },
          createConnection: () => socket,
        },
        (response) => {
          response.resume();
          const code = response.statusCode ?? 0;
          const ok = code >= 200 && code < 400;
          resolve({ ok, message: ok ? '' : `HTTP probe failed with statuscode: ${code}` });
        },
      );
      outgoing.setTimeout(Math.max(1, timeout - (Date.now() - started)), () =>
        outgoing.destroy(new Error(`no answer within ${timeout} ms`)),
      );
      outgoing.on('error', (error) => resolve({ ok: false, message: `Get "${url}": ${inWords(error)}` }));
      outgoing.end();
    });
  } finally {
    socket.destroy();
  }
}

async function probeTcp(
  tcp: NonNullable<Probe['tcpSocket']>,
  target: ProbeTarget,
  timeout: number,
): Promise<ProbeOutcome> {
  const host = tcp.host || target.ip;
  const port = probePort(tcp.port, target.container);
  const socket = await target.connect(host, port);
  return await new Promise((resolve) => {
    const done = (ok: boolean, why = ''): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ ok, message: ok ? '' : `dial tcp ${host}:${port}: ${why}` });
    };
    const timer = setTimeout(() => done(false, 'i/o timeout'), timeout);
    socket.on('error', (error) => done(false, inWords(error)));
    // The connection has only begun: an empty write completes once it stands.
    socket.write('', (error) => done(!error, error ? inWords(error) : ''));
  });
}

function probeExec(command: string[], target: ProbeTarget, timeout: number): Promise<ProbeOutcome> {
  const enter = target.enter();
  if (!enter) return Promise.resolve({ ok: false, message: 'the container does not run' });
  return new Promise((resolve) => {
    const options = { timeout, killSignal: 'SIGKILL' as const, maxBuffer: 65_536 };
    execFile(enter[0]!, [...enter.slice(1), ...command], options, (error, stdout, stderr) => {
      resolve({ ok: !error, message: error ? (stderr || stdout || error.message).trim().slice(0, 500) : '' });
    });
  });
}

/**
 * Repeats a probe and tells when its verdict changes: after `failureThreshold` failures or `successThreshold` successes in a row.
 * Starts undecided; ends when the signal aborts.
 */
export async function runProbe(
  probe: Probe,
  once: () => Promise<ProbeOutcome>,
  clock: Clock,
  signal: AbortSignal,
  on: { verdict(ok: boolean, message: string): void; failure?(message: string): void },
): Promise<void> {
  const { initialDelaySeconds = 0, periodSeconds, successThreshold = 1, failureThreshold = 3 } = probe;
  const period = (periodSeconds || 10) * 1000;
  let verdict: boolean | undefined;
  let last: boolean | undefined;
  let inRow = 0;
  try {
    if (initialDelaySeconds > 0) await clock.sleep(initialDelaySeconds * 1000, signal);
    while (!signal.aborted) {
      const { ok, message } = await once();
      if (signal.aborted) return;
      inRow = ok === last ? inRow + 1 : 1;
      last = ok;
      if (!ok) on.failure?.(message);
      if (inRow >= (ok ? successThreshold : failureThreshold) && verdict !== ok) {
        verdict = ok;
        on.verdict(ok, message);
      }
      await clock.sleep(period, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
