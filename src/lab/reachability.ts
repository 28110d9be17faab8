/**
 * Who reaches whom, measured by real packets: a pod and a host-network pod on every node, and the outside host, each asked to dial
 * all others over every family and protocol. Each answer is the address that the peer saw, so the measurement tells translation
 * from none: among pods and nodes the peer must see the dialer's own address and port (Kubernetes' network model), and outside
 * must see an address of the node.
 */
import { Agent, type AgentOptions, request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import { type ApiClient, NAMESPACES, PODS } from '../api/client.ts';
import { isAlreadyExists, isNotFound } from '../api/errors.ts';
import { objectKey } from '../api/object-key.ts';
import type { Pod } from '../api/types.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { type Family, familyOf, type Ip } from '../base/ip.ts';
import type { Topology } from './topology.ts';

export const PROBE_NAMESPACE = 'weft-system';
const POD_PORTS = { http: 8080, udp: 8081 };
/** Of the host-network pods: ports that nobody else wants. */
const HOST_PORTS = { http: 10_180, udp: 10_181 };
const START_TIMEOUT = 20_000;
const DIAL_TIMEOUT = 3_000;
const AT_ONCE = 4;

export interface Place {
  name: string;
  kind: 'pod' | 'node' | 'outside';
  /** '' for outside. */
  node: string;
  ips: Ip[];
  /** A family that has no address here is not dialled. */
  ports: { http: number; udp: number };
}

export interface Dial {
  from: string;
  to: string;
  family: Family;
  protocol: 'tcp' | 'udp';
  ok: boolean;
  /** Why not. */
  error?: string;
  /** `address:port` of the dialer as it knows itself, and as the peer saw it. */
  local?: string;
  seen?: string;
}

export interface Reachability {
  places: Place[];
  dials: Dial[];
  ok: boolean;
  /** Milliseconds. */
  took: number;
}

/** The probe pods, made where they are missing. */
export async function probePods(client: ApiClient, topology: Topology): Promise<Pod[]> {
  const namespace = PROBE_NAMESPACE;
  const make = async (pod: Pod): Promise<Pod> => {
    const ref = { name: pod.metadata.name, namespace };
    try {
      return await client.create(PODS, pod);
    } catch (error) {
      if (isAlreadyExists(error)) return await client.get(PODS, ref);
      if (!isNotFound(error)) throw error;
      // The namespace is missing.
      await client
        .create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } })
        .catch((failure) => {
          if (!isAlreadyExists(failure)) throw failure;
        });
      return await client.create(PODS, pod);
    }
  };
  const wanted = topology.nodes.flatMap(({ name }) => [probePod(name, false), probePod(name, true)]);
  // The first one alone, so that the namespace is made once.
  const [first, ...rest] = wanted;
  return first ? [await make(first), ...(await Promise.all(rest.map(make)))] : [];
}

function probePod(node: string, hostNetwork: boolean): Pod {
  const ports = hostNetwork ? HOST_PORTS : POD_PORTS;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: `${hostNetwork ? 'host' : 'pod'}-${node}`,
      namespace: PROBE_NAMESPACE,
      labels: { 'weft.dev/probe': hostNetwork ? 'host' : 'pod' },
    },
    spec: {
      nodeName: node,
      ...(hostNetwork && { hostNetwork }),
      terminationGracePeriodSeconds: 1,
      tolerations: [{ operator: 'Exists' }],
      containers: [
        {
          name: 'agnhost',
          image: 'agnhost',
          args: ['netexec', `--http-port=${ports.http}`, `--udp-port=${ports.udp}`],
        },
      ],
    },
  };
}

export interface ReachabilityInput {
  pods: Pod[];
  topology: Topology;
  /** The pod as it stands, by `namespace/name`. */
  podNow(key: string): Pod | undefined;
  /** A connection begun in the node's network namespace. */
  connect(node: string, ip: Ip, port: number): Promise<Socket>;
}

/** @throws WEFT_LAB_NOT_READY when a probe pod does not come up */
export async function measureReachability(input: ReachabilityInput): Promise<Reachability> {
  const began = Date.now();
  const places = await Promise.all(input.pods.map((pod) => upAndServing(pod, input)));
  places.push({
    name: 'outside',
    kind: 'outside',
    node: '',
    ips: input.topology.outside.ips,
    ports: POD_PORTS,
  });
  const dials = (await Promise.all(places.map((from) => dialAll(from, places, input)))).flat();
  return { places, dials, ok: dials.every(({ ok }) => ok), took: Date.now() - began };
}

/** Wait until the pod has its address and its server answers. */
async function upAndServing(pod: Pod, input: ReachabilityInput): Promise<Place> {
  const key = objectKey(pod);
  const node = pod.spec.nodeName!;
  const host = pod.spec.hostNetwork === true;
  const ports = host ? HOST_PORTS : POD_PORTS;
  const end = Date.now() + START_TIMEOUT;
  let why = 'it has no address yet';
  for (;;) {
    const ips = (input.podNow(key)?.status?.podIPs ?? []).map(({ ip }) => ip);
    if (ips[0]) {
      try {
        await ask(
          agentVia(() => input.connect(node, ips[0]!, ports.http)),
          '/healthz',
          500,
        );
        return { name: host ? node : `pod on ${node}`, kind: host ? 'node' : 'pod', node, ips, ports };
      } catch (error) {
        why = messageOf(error);
      }
    }
    if (Date.now() > end)
      throw new WeftError('WEFT_LAB_NOT_READY', `the probe pod ${key} does not answer: ${why}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

async function dialAll(from: Place, places: Place[], input: ReachabilityInput): Promise<Dial[]> {
  if (from.kind === 'outside') return []; // it knows no way to pods, and need not
  const wanted = places
    .filter((to) => to !== from)
    .flatMap((to) =>
      to.ips.flatMap((ip) => (['tcp', 'udp'] as const).map((protocol) => ({ to, ip, protocol }))),
    );
  const agent = agentVia(() => input.connect(from.node, from.ips[0]!, from.ports.http), {
    keepAlive: true,
    maxSockets: AT_ONCE,
  });
  const results: Dial[] = [];
  const worker = async (): Promise<void> => {
    for (let next = wanted.shift(); next; next = wanted.shift()) {
      results.push(await dialOne(from, next.to, next.ip, next.protocol, agent, input.topology));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  agent.destroy();
  return results;
}

async function dialOne(
  from: Place,
  to: Place,
  ip: Ip,
  protocol: 'tcp' | 'udp',
  agent: Agent,
  topology: Topology,
): Promise<Dial> {
  const dial: Dial = { from: from.name, to: to.name, family: familyOf(ip), protocol, ok: false };
  const query = new URLSearchParams({
    host: ip,
    port: String(protocol === 'tcp' ? to.ports.http : to.ports.udp),
    protocol: protocol === 'tcp' ? 'http' : 'udp',
    request: 'clientip',
    local: 'true',
  });
  try {
    const answer = JSON.parse(await ask(agent, `/dial?${query}`, DIAL_TIMEOUT)) as Record<string, string[]>;
    const error = answer.errors?.[0];
    if (error !== undefined) return { ...dial, error };
    const seen = answer.responses?.[0] ?? '';
    const local = answer.locals?.[0] ?? '';
    const wrong = translation(from, to, seen, local, topology);
    return { ...dial, seen, local, ok: wrong === undefined, ...(wrong !== undefined && { error: wrong }) };
  } catch (error) {
    return { ...dial, error: messageOf(error) };
  }
}

/** What is wrong with the address that the peer saw; undefined when it is as it must be. */
export function translation(
  from: Place,
  to: Place,
  seen: string,
  local: string,
  topology: Topology,
): string | undefined {
  const address = addressOf(seen);
  if (to.kind !== 'outside') {
    if (seen !== local) return `translated: dialled as ${local}, seen as ${seen}`;
    if (from.kind === 'pod' && !from.ips.includes(address))
      return `seen as ${address}, which is not the pod's address`;
    return undefined;
  }
  const nodeIPs = topology.nodes.find(({ name }) => name === from.node)?.nodeIPs ?? [];
  return nodeIPs.includes(address)
    ? undefined
    : `not masqueraded: seen as ${address}, not as ${nodeIPs.join(' or ')}`;
}

/** `1.2.3.4:5` and `[::1]:5` → the address. */
export function addressOf(hostPort: string): string {
  return hostPort.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}

/** An HTTP agent whose connections are made elsewhere. */
function agentVia(connect: () => Promise<Socket>, options: AgentOptions = {}): Agent {
  const agent = new Agent(options);
  agent.createConnection = (_options, done) => {
    connect().then(
      (socket) => done?.(null, socket),
      (error) => done?.(error as Error, undefined as never),
    );
    return undefined;
  };
  return agent;
}

function ask(agent: Agent, path: string, timeout: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({ path, agent, host: 'agnhost' }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () =>
        response.statusCode === 200
          ? resolve(body)
          : reject(new Error(`HTTP ${response.statusCode}: ${body}`)),
      );
    });
    const timer = setTimeout(() => outgoing.destroy(new Error(`no answer within ${timeout} ms`)), timeout);
    outgoing.once('close', () => clearTimeout(timer));
    outgoing.once('error', reject);
    outgoing.end();
  });
}

/** The matrix as text: a row per dialer, a column per peer. */
export function renderReachability({ places, dials, ok, took }: Reachability): string {
  const families = [...new Set(dials.map(({ family }) => family))].sort();
  const cell = (from: Place, to: Place): string => {
    if (from === to) return '·';
    return families
      .map((family) => {
        const those = dials.filter(
          (dial) => dial.from === from.name && dial.to === to.name && dial.family === family,
        );
        if (those.length === 0) return '';
        return `${those.every((dial) => dial.ok) ? '✓' : '✗'}v${family}`;
      })
      .filter(Boolean)
      .join(' ');
  };
  const rows = [
    ['from \\ to', ...places.map(({ name }) => name)],
    ...places
      .filter(({ kind }) => kind !== 'outside')
      .map((from) => [from.name, ...places.map((to) => cell(from, to))]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  const good = dials.filter((dial) => dial.ok).length;
  const names = families.map((family) => `IPv${family}`).join(' and ');
  lines.push(
    '',
    ok
      ? `${good} of ${dials.length} dials, TCP and UDP over ${names}, in ${took} ms: no translation among pods and nodes, masquerade to outside.`
      : `${good} of ${dials.length} dials succeeded:`,
    ...dials
      .filter((dial) => !dial.ok)
      .slice(0, 20)
      .map((dial) => `  ${dial.from} → ${dial.to} ${dial.protocol} IPv${dial.family}: ${dial.error}`),
  );
  return lines.join('\n');
}
