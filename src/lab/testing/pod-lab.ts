/**
 * A lab of one node without an agent, for tests of the pod runner: a real API server, real namespaces and processes, and a CNI
 * plugin of a few lines of shell, so that nothing else of Weft has to work for them.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import path from 'node:path';
import { EVENTS, NAMESPACES, PODS } from '../../api/client.ts';
import { isAlreadyExists, isNotFound } from '../../api/errors.ts';
import { objectKey } from '../../api/object-key.ts';
import type { Pod } from '../../api/types.ts';
import { ensureCa, issueClient } from '../../apiserver/pki.ts';
import { type ApiServer, startApiServer } from '../../apiserver/server.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { EventRecorder } from '../../controllers/event-recorder.ts';
import { apiTables } from '../../informers/api-tables.ts';
import { HttpApiClient } from '../../informers/http-client.ts';
import { openKernel } from '../../kernel/kernel.ts';
import type { Kernel } from '../../kernel/types.ts';
import { destroyLab } from '../destroy.ts';
import { ensureMounts, ensureNodeNamespaces } from '../namespaces.ts';
import { ensureNode, ensureRouter } from '../network.ts';
import { type LabPaths, labPaths } from '../paths.ts';
import { type PodRow, PodRunner } from '../pods/pod-runner.ts';
import { SandboxManager } from '../pods/sandbox.ts';
import { labSpec, type Topology, topologyOf } from '../topology.ts';

/** Gives 10.99.0.<n>, n from a counter on the node; refuses with code 11 while /var/lib/weft/refuse is there. */
const PLUGIN = `#!/bin/sh -eu
state=/var/lib/weft
conf=$(cat)
case $CNI_COMMAND in
ADD)
  if [ -e $state/refuse ]; then echo '{"cniVersion":"1.0.0","code":11,"msg":"not now","details":"the test says so"}'; exit 1; fi
  echo "$CNI_ARGS" >$state/last-args
  n=$(($(cat $state/counter 2>/dev/null || echo 1) + 1)); echo $n >$state/counter
  ip link add h$n type veth peer name eth0 netns $(basename $CNI_NETNS)
  nsenter --net=$CNI_NETNS sh -c "ip address add 10.99.0.$n/32 dev eth0; ip link set eth0 up; ip route add default dev eth0"
  ip link set h$n up
  ip route add 10.99.0.$n/32 dev h$n
  sysctl -qw net.ipv4.conf.h$n.proxy_arp=1
  echo $n >$state/ip-$CNI_CONTAINERID
  echo "{\\"cniVersion\\":\\"1.0.0\\",\\"ips\\":[{\\"address\\":\\"10.99.0.$n/32\\"}]}" ;;
DEL)
  echo "$CNI_CONTAINERID" >>$state/deleted
  n=$(cat $state/ip-$CNI_CONTAINERID 2>/dev/null) || exit 0
  ip link delete h$n 2>/dev/null || true
  rm -f $state/ip-$CNI_CONTAINERID ;;
esac
`;

export class PodLab {
  readonly name: string;
  readonly paths: LabPaths;
  readonly topology: Topology;
  readonly kernel: Kernel;
  readonly client: HttpApiClient;
  readonly #server: ApiServer;
  #runner: PodRunner | undefined;
  #table: { close(): Promise<void> } | undefined;

  private constructor(name: string, kernel: Kernel, server: ApiServer, client: HttpApiClient) {
    this.name = name;
    this.paths = labPaths(name);
    this.topology = topologyOf(labSpec({ name, nodes: 1 }));
    this.kernel = kernel;
    this.#server = server;
    this.client = client;
  }

  static async make(name: string): Promise<PodLab> {
    const paths = labPaths(name);
    const [kernel, server] = await Promise.all([
      openKernel(),
      startApiServer({
        dataDir: paths.apiData,
        listen: [{ host: '127.0.0.1', port: 0 }],
        advertise: [],
        logger: silentLogger,
      }),
    ]);
    const ca = await ensureCa(server.pkiDir);
    const admin = await issueClient(server.pkiDir, { user: 'test', groups: ['system:masters'] });
    const client = new HttpApiClient({ server: server.url, ca: ca.cert, ...admin, namespace: 'default' });
    const lab = new PodLab(name, kernel, server, client);
    await ensureMounts(paths);
    await ensureRouter(kernel, lab.topology, paths);
    const node = lab.topology.nodes[0]!;
    await ensureNode(kernel, node, lab.topology, paths);
    await ensureNodeNamespaces(node.name, paths.node(node.name), '127.0.0.1 localhost\n');
    const { cniBin, cniConf } = paths.node(node.name);
    for (const folder of [cniBin, cniConf]) mkdirSync(folder, { recursive: true });
    writeFileSync(`${cniBin}/test-plugin`, PLUGIN);
    chmodSync(`${cniBin}/test-plugin`, 0o755);
    const config = { cniVersion: '1.0.0', name: 'test', plugins: [{ type: 'test-plugin' }] };
    writeFileSync(`${cniConf}/10-test.conflist`, JSON.stringify(config));
    await client
      .create(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } })
      .catch((error) => assert.ok(isAlreadyExists(error)));
    await lab.startRunner();
    return lab;
  }

  get node(): string {
    return this.topology.nodes[0]!.name;
  }

  /** A file of the node's /var/lib/weft. */
  nodeFile(name: string): string {
    return path.join(this.paths.node(this.node).state, name);
  }

  async startRunner(): Promise<void> {
    const source = apiTables({ client: this.client, clock: systemClock, logger: silentLogger });
    const pods = source.open({ resource: PODS, map: (pod: Pod): PodRow => ({ key: objectKey(pod), pod }) });
    await pods.synced;
    this.#table = pods;
    this.#runner = new PodRunner({
      paths: this.paths,
      client: this.client,
      kernel: this.kernel,
      sandboxes: new SandboxManager(this.kernel, this.paths),
      events: new EventRecorder({
        client: this.client,
        component: 'weft-lab',
        clock: systemClock,
        logger: silentLogger,
      }),
      clock: systemClock,
      log: silentLogger,
      hasNode: (name) => name === this.node,
      nodeIPs: () => this.topology.nodes[0]!.nodeIPs,
      connect: async (_node, ip, port) =>
        new Socket({ fd: await this.kernel.connectTcp(this.paths.node(this.node).netns, ip, port) }),
    });
    await this.#runner.start(pods.table);
  }

  /** As when the daemon is killed: nobody looks after the pods any more. */
  async stopRunner(): Promise<void> {
    await this.#runner?.close();
    await this.#table?.close();
    this.#runner = undefined;
  }

  async create(name: string, spec: Omit<Pod['spec'], 'nodeName'>): Promise<Pod> {
    return await this.client.create(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default' },
      spec: { nodeName: this.node, terminationGracePeriodSeconds: 2, ...spec },
    });
  }

  async pod(name: string): Promise<Pod | undefined> {
    try {
      return await this.client.get(PODS, { name, namespace: 'default' });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** The pod once it satisfies the condition. */
  async until(name: string, condition: (pod: Pod) => boolean, timeout = 15_000): Promise<Pod> {
    return await eventually<Pod>(`pod ${name}`, timeout, async () => {
      const pod = await this.pod(name);
      return pod && condition(pod) ? pod : { not: pod?.status ?? 'gone' };
    });
  }

  async untilGone(name: string): Promise<void> {
    await eventually(
      `pod ${name} to be gone`,
      15_000,
      async () => (await this.pod(name)) ?? true,
      (value) => value === true,
    );
  }

  async events(name: string): Promise<string[]> {
    const { items } = await this.client.list(EVENTS, { namespace: 'default' });
    return items
      .filter((event) => event.involvedObject.name === name)
      .map((event) => `${event.reason}: ${event.message}`);
  }

  async destroy(): Promise<void> {
    await this.stopRunner();
    await this.client.close();
    await this.#server.close();
    await this.kernel[Symbol.asyncDispose]();
    const { left, gone } = await destroyLab(this.name);
    assert.ok(gone, `left behind: ${JSON.stringify(left)}`);
  }
}

/** Poll until `look` gives something accepted; by default anything but `{ not: … }`. */
export async function eventually<T>(
  what: string,
  timeout: number,
  look: () => Promise<T | { not: unknown }>,
  accept: (value: T | { not: unknown }) => boolean = (value) =>
    !(value && typeof value === 'object' && 'not' in value),
): Promise<T> {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await look();
    if (accept(value)) return value as T;
    if (Date.now() > end)
      throw new Error(`waited ${timeout} ms for ${what}; last seen: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

export const isReadyPod = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
