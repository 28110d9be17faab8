/** A whole lab for tests: booted, looked at, broken, and destroyed with the proof that nothing is left. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { EVENTS, NODES, PODS } from '../../api/client.ts';
import type { AgentConfig } from '../../api/config.ts';
import { isNotFound } from '../../api/errors.ts';
import type { Event, Pod } from '../../api/types.ts';
import { messageOf } from '../../base/errors.ts';
import type { HttpApiClient } from '../../informers/http-client.ts';
import { countTraces } from '../destroy.ts';
import { createLab, destroyLab, labClient, labTraces, nodeExec, type RunResult } from '../lab.ts';
import { type LabPaths, labPaths } from '../paths.ts';
import { findProcesses, type LabProcess, signal } from '../processes.ts';
import type { LabOptions, Topology } from '../topology.ts';
import { eventually, isReadyPod } from './pod-lab.ts';

/** Generous: other tests run beside this one. It is a limit, never a wait. */
const PATIENCE_MS = 30_000;

export class TestLab implements AsyncDisposable {
  readonly name: string;
  readonly paths: LabPaths;
  readonly client: HttpApiClient;
  readonly topology: Topology;
  readonly kubeconfig: string;

  private constructor(name: string, client: HttpApiClient, topology: Topology, kubeconfig: string) {
    this.name = name;
    this.paths = labPaths(name);
    this.client = client;
    this.topology = topology;
    this.kubeconfig = kubeconfig;
  }

  /** `label`: a few letters that tell the labs of the test files apart. */
  static async boot(label: string, options: Omit<LabOptions, 'name'>): Promise<TestLab> {
    const name = `${label}${process.pid}`;
    try {
      const { topology, kubeconfig } = await createLab({ name, ...options, readyTimeout: 60_000 });
      return new TestLab(name, await labClient(name), topology, kubeconfig);
    } catch (error) {
      const said = lastWords(labPaths(name).logs);
      await destroyLab(name);
      throw new Error(`${messageOf(error)}\n${said}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
    const { gone, left } = await destroyLab(this.name);
    assert.ok(gone, `left behind: ${JSON.stringify(left)}`);
    assert.equal(countTraces(labTraces(this.name)), 0);
  }

  // --- processes ---

  process(role: string): LabProcess | undefined {
    return findProcesses(this.name).find((each) => each.role === role);
  }

  /** Kill -9, and no waiting. */
  kill(role: string): LabProcess {
    const found = this.process(role);
    assert.ok(found && signal(found, 'SIGKILL'), `${role} does not run`);
    return found;
  }

  /** Kill -9 the agent of a node; resolves when its successor has the network as it should be. */
  async restartAgent(node: string): Promise<void> {
    const { pid } = this.kill(`agent/${node}`);
    await eventually<true>(`another agent on ${node}`, PATIENCE_MS, async () => {
      const found = this.process(`agent/${node}`);
      return found && found.pid !== pid ? true : { not: found };
    });
    await this.agentReady(node);
  }

  /** By the agent's own word: what the API says may be older. */
  async agentReady(node: string): Promise<void> {
    const program = `
      const end = Date.now() + ${PATIENCE_MS};
      for (;;) {
        const answer = await fetch('http://127.0.0.1:9464/readyz').then(async (r) => r.ok || (await r.text()), String);
        if (answer === true) break;
        if (Date.now() > end) { console.log(answer); process.exit(1); }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }`;
    const { code, stdout } = await this.onNode(node, process.execPath, '--input-type=module', '-e', program);
    assert.equal(code, 0, `the agent of ${node} is not ready: ${stdout}`);
  }

  /** Let the agent of a node start with other settings from now on. */
  configureAgent(node: string, more: Partial<AgentConfig>): void {
    const file = this.paths.node(node).agentConfig;
    writeFileSync(file, JSON.stringify({ ...this.agentConfig(node), ...more }));
  }

  agentConfig(node: string): Record<string, unknown> {
    return {
      nodeName: node,
      kubeconfig: '/var/lib/weft/kubeconfig',
      clusterCIDRs: this.topology.spec.clusterCIDRs,
      registerNode: true,
      fabric: { backend: this.topology.spec.fabric },
    };
  }

  // --- nodes ---

  async onNode(node: string, ...argv: string[]): Promise<RunResult> {
    return await nodeExec(this.name, node, argv);
  }

  /** Run it, and it must succeed. */
  async must(node: string, ...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.onNode(node, ...argv);
    assert.equal(code, 0, `${node}: ${argv.join(' ')}: ${stderr || stdout}`);
    return stdout;
  }

  async podCIDRs(node: string): Promise<string[]> {
    return (await this.client.get(NODES, { name: node })).spec?.podCIDRs ?? [];
  }

  /** Events about a node that are new or were counted again since `seen` was filled; they are added to it. */
  async nodeEvents(node: string, seen: Set<string>): Promise<Event[]> {
    const { items } = await this.client.list(EVENTS);
    const fresh = items.filter(
      ({ involvedObject, metadata }) =>
        involvedObject.kind === 'Node' &&
        involvedObject.name === node &&
        !seen.has(`${metadata.name}@${metadata.resourceVersion}`),
    );
    for (const { metadata } of fresh) seen.add(`${metadata.name}@${metadata.resourceVersion}`);
    return fresh;
  }

  // --- pods, in the namespace `default` ---

  async createPod(name: string, spec: Partial<Pod['spec']> = {}): Promise<Pod> {
    return await this.client.create(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default' },
      spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image: 'pause' }], ...spec },
    });
  }

  /** Make a pod and wait until it is ready. */
  async pod(name: string, spec: Partial<Pod['spec']> = {}): Promise<Pod> {
    await this.createPod(name, spec);
    return await this.ready(name);
  }

  async ready(name: string): Promise<Pod> {
    return await this.until(name, isReadyPod);
  }

  async until(name: string, condition: (pod: Pod) => boolean): Promise<Pod> {
    return await eventually<Pod>(`pod ${name}`, PATIENCE_MS, async () => {
      const pod = await this.find(name);
      return pod && condition(pod) ? pod : { not: pod?.status ?? 'gone' };
    });
  }

  async find(name: string): Promise<Pod | undefined> {
    try {
      return await this.client.get(PODS, { name, namespace: 'default' });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Delete a pod and wait until it is gone. */
  async deletePod(name: string, options: { gracePeriodSeconds?: number } = {}): Promise<void> {
    await this.client.delete(PODS, { name, namespace: 'default' }, options);
    await eventually<true>(`pod ${name} to go`, PATIENCE_MS, async () =>
      (await this.find(name)) ? { not: 'still there' } : true,
    );
  }

  netnsOf(pod: Pod): string {
    return this.paths.podNetns(pod.metadata.uid!);
  }
}

/** The ends of all logs: with the lab, they would go too. */
function lastWords(folder: string): string {
  const files = existsSync(folder) ? readdirSync(folder) : [];
  return files
    .map((file) => {
      const lines = readFileSync(path.join(folder, file), 'utf8').trimEnd().split('\n');
      return `--- ${file}\n${lines.slice(-12).join('\n')}`;
    })
    .join('\n');
}

/** The addresses of a pod, as the API has them. */
export const ipsOf = (pod: Pod): string[] => pod.status?.podIPs?.map(({ ip }) => ip) ?? [];
