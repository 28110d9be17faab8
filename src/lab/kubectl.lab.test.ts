/** What a user does with the real kubectl and the `weft` command on a lab. WEFT_TEST_KUBECTL names another kubectl than the PATH's. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { EVENTS } from '../api/client.ts';
import type { Pod } from '../api/types.ts';
import { HOME } from './paths.ts';
import { nothingLeaked } from './testing/leaks.ts';
import { eventually } from './testing/pod-lab.ts';
import { ipsOf, TestLab } from './testing/test-lab.ts';

const kubectlPath = process.env.WEFT_TEST_KUBECTL ?? findInPath('kubectl');

function findInPath(name: string): string | undefined {
  const candidates = (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, name));
  return candidates.find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

interface Result {
  code: number;
  out: string;
  err: string;
}

describe('kubectl', { concurrency: false, skip: kubectlPath ? false : 'no kubectl on this machine' }, () => {
  const home = mkdtempSync(path.join(tmpdir(), 'weft-kubectl-'));
  let lab: TestLab;
  let env: NodeJS.ProcessEnv;
  before(async () => {
    lab = await TestLab.boot('kc', { nodes: 2 });
    env = { PATH: process.env.PATH, HOME: home, KUBECONFIG: lab.kubeconfig };
  });
  after(async () => {
    rmSync(home, { recursive: true, force: true });
    await lab?.[Symbol.asyncDispose]();
  });

  function run(program: string, args: string[], input = ''): Promise<Result> {
    return new Promise((resolve) => {
      const child = execFile(program, args, { env, timeout: 60_000 }, (error, out, err) =>
        resolve({ code: error ? Number(error.code ?? 1) : 0, out, err }),
      );
      child.stdin?.on('error', () => {});
      child.stdin?.end(input);
    });
  }
  /** Words are separated by single spaces. */
  async function kubectl(line: string, input?: string): Promise<string> {
    const { code, out, err } = await run(kubectlPath!, line.split(' '), input);
    assert.equal(code, 0, `kubectl ${line}: ${err}${out}`);
    return out;
  }
  const weft = (...args: string[]): Promise<Result> =>
    run(path.join(HOME, 'weft'), [args[0]!, '-l', lab.name, ...args.slice(1)]);
  const apply = (pods: Array<Pick<Pod, 'metadata'> & { spec: unknown }>): Promise<string> =>
    kubectl(
      'apply -f -',
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'List',
        items: pods.map((pod) => ({ apiVersion: 'v1', kind: 'Pod', ...pod })),
      }),
    );
  /** `GET http://…` from inside a pod: the body. */
  const fetched = async (pod: string, url: string): Promise<string> => {
    const program = `fetch(process.argv[1]).then((r) => r.text()).then((t) => process.stdout.write(t), (e) => { console.error(e.cause ?? e); process.exit(1); })`;
    const { code, out, err } = await weft('exec', pod, '--', process.execPath, '-e', program, url);
    assert.equal(code, 0, `${pod} → ${url}: ${err}`);
    return out;
  };

  test('nodes are Ready, with their addresses', async () => {
    const lines = (await kubectl('get nodes -o wide --no-headers')).trim().split('\n');
    assert.deepEqual(
      lines.map((line) => line.split(/\s+/).slice(0, 2)),
      [
        ['node-1', 'Ready'],
        ['node-2', 'Ready'],
      ],
    );
    for (const { name, nodeIPs } of lab.topology.nodes) {
      assert.ok(lines.find((line) => line.startsWith(name))!.includes(nodeIPs[0]!));
      const description = await kubectl(`describe node ${name}`);
      assert.match(description, /PodCIDRs: +10\.244\.\d+\.0\/24,fd00:10:244:/);
      assert.match(description, /Ready +True/);
    }
  });

  test('examples/hello.yaml: applied, ready, reaching each other, changed, deleted without a trace', async () => {
    const file = path.join(HOME, 'examples/hello.yaml');
    const watching = spawn(kubectlPath!, ['get', 'pods', '-w', '-o', 'name'], {
      env,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let watched = '';
    watching.stdout.on('data', (chunk) => {
      watched += chunk;
    });
    try {
      assert.match(await kubectl(`apply -f ${file}`), /pod\/hello-a created\npod\/hello-b created/);
      await kubectl('wait --for=condition=Ready pod -l app=hello --timeout=40s');
      assert.match(await kubectl(`apply -f ${file}`), /pod\/hello-a unchanged\npod\/hello-b unchanged/);
      const [a, b] = [(await lab.find('hello-a'))!, (await lab.find('hello-b'))!];
      assert.notEqual(a.spec.nodeName, b.spec.nodeName);
      for (const ip of ipsOf(b)) {
        const url = ip.includes(':') ? `http://[${ip}]:8080` : `http://${ip}:8080`;
        assert.equal(await fetched('hello-a', `${url}/hostname`), 'hello-b');
        // The address a pod sees for itself is the one others see.
        assert.ok(ipsOf(a).some((own) => own.includes(':') === ip.includes(':')));
        const own = ipsOf(a).find((each) => each.includes(':') === ip.includes(':'))!;
        assert.ok((await fetched('hello-a', `${url}/clientip`)).includes(own));
      }
      const wide = await kubectl('get pods -o wide --no-headers');
      assert.match(wide, new RegExp(`hello-a +1/1 +Running +0 .*${a.status!.podIP} +${a.spec.nodeName}`));
      assert.match(wide, /hello-b +2\/2 +Running/);
      await eventually<true>('the watch to tell', 10_000, async () =>
        watched.includes('pod/hello-a') && watched.includes('pod/hello-b') ? true : { not: watched },
      );
    } finally {
      watching.kill('SIGKILL');
    }
    assert.match(await kubectl('label pod hello-a colour=blue'), /labeled/);
    assert.equal(await kubectl('get pods -l colour=blue -o name'), 'pod/hello-a\n');
    const description = await kubectl('describe pod hello-b');
    for (const reason of ['Scheduled', 'Pulled', 'Created', 'Started'])
      assert.match(description, new RegExp(`Normal +${reason} `), description);

    const pods = [(await lab.find('hello-a'))!, (await lab.find('hello-b'))!];
    assert.ok(pods.every((pod) => existsSync(lab.netnsOf(pod))));
    await kubectl(`delete -f ${file}`);
    for (const pod of pods) assert.ok(!existsSync(lab.netnsOf(pod)), 'its network namespace');
    await nothingLeaked(lab);
  });

  test('an address that a pod had is not given to the next one at once', async () => {
    const first = await lab.pod('first', { nodeName: 'node-1' });
    await lab.deletePod('first');
    const second = await lab.pod('second', { nodeName: 'node-1' });
    assert.deepEqual(
      ipsOf(second).filter((ip) => ipsOf(first).includes(ip)),
      [],
    );
    await lab.deletePod('second');
  });

  test('containers of a pod share its network, hostname and IPC; each has its own output', async () => {
    await apply([
      {
        metadata: { name: 'both', namespace: 'default' },
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [
            { name: 'server', image: 'agnhost', args: ['netexec', '--http-port=8080'] },
            { name: 'other', image: 'exec', command: ['sh', '-c', 'echo I am $HOSTNAME; sleep infinity'] },
          ],
        },
      },
    ]);
    await kubectl('wait --for=condition=Ready pod/both --timeout=40s');
    const inodes = await Promise.all(
      ['server', 'other'].map((container) =>
        weft(
          'exec',
          '-c',
          container,
          'both',
          '--',
          'readlink',
          '/proc/self/ns/net',
          '/proc/self/ns/uts',
          '/proc/self/ns/ipc',
        ),
      ),
    );
    assert.equal(inodes[0]!.code, 0, inodes[0]!.err);
    assert.equal(inodes[0]!.out, inodes[1]!.out);
    const own = `http://127.0.0.1:8080/hostname`;
    await eventually<true>('the server', 10_000, async () => {
      const { out, err } = await weft(
        'exec',
        '-c',
        'other',
        'both',
        '--',
        process.execPath,
        '-e',
        `fetch('${own}').then(r=>r.text()).then(console.log)`,
      );
      return out === 'both\n' ? true : { not: out + err };
    });
    assert.equal((await weft('logs', '-c', 'other', 'both')).out, 'I am both\n');
    assert.match((await weft('logs', 'both')).out, /^netexec on both/);
    assert.equal((await weft('exec', 'both', '--', 'sh', '-c', 'exit 7')).code, 7);
    assert.equal((await weft('exec', 'both', '--', 'sh', '-c', 'kill -9 $$')).code, 128 + 9);
    const missing = await weft('logs', '-c', 'nobody', 'both');
    assert.equal(missing.code, 1);
    assert.match(missing.err, /WEFT_BAD_CONFIG.*no container nobody; it has server, other/);
    assert.match((await weft('exec', 'nobody', '--', 'true')).err, /WEFT_POD_NOT_RUNNING/);
  });

  test('hostNetwork: the node’s own addresses, reached at the node', async () => {
    await apply([
      {
        metadata: { name: 'host', namespace: 'default' },
        spec: {
          nodeName: 'node-2',
          hostNetwork: true,
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              name: 'main',
              image: 'agnhost',
              args: ['netexec', '--http-port=8090'],
              readinessProbe: { httpGet: { path: '/healthz', port: 8090 }, periodSeconds: 1 },
            },
          ],
        },
      },
    ]);
    await kubectl('wait --for=condition=Ready pod/host --timeout=40s');
    const node = lab.topology.nodes.find(({ name }) => name === 'node-2')!;
    assert.deepEqual(ipsOf((await lab.find('host'))!), node.nodeIPs);
    assert.equal(await fetched('both', `http://${node.nodeIPs[0]}:8090/hostname`), 'node-2');
  });

  test('an unknown image is ErrImagePull, and says which there are', async () => {
    await apply([
      {
        metadata: { name: 'nginx', namespace: 'default' },
        spec: { containers: [{ name: 'main', image: 'nginx:1.27' }] },
      },
    ]);
    await eventually<true>('ErrImagePull', 20_000, async () => {
      const out = await kubectl('get pod nginx --no-headers');
      return /nginx +0\/1 +(ErrImagePull|ImagePullBackOff)/.test(out) ? true : { not: out };
    });
    assert.match(await kubectl('describe pod nginx'), /Failed to pull image "nginx:1.27": .*agnhost/);
    await kubectl('delete pod nginx --wait=true');
  });

  test('a container that fails is restarted, and then backed off; one that is to run once is not', async () => {
    const failing = (
      name: string,
      restartPolicy: string,
      code: number,
    ): Pick<Pod, 'metadata'> & { spec: unknown } => ({
      metadata: { name, namespace: 'default' },
      spec: {
        restartPolicy,
        terminationGracePeriodSeconds: 1,
        containers: [{ name: 'main', image: 'exec', command: ['sh', '-c', `echo run; exit ${code}`] }],
      },
    });
    await apply([
      failing('always', 'Always', 3),
      failing('never', 'Never', 3),
      failing('once', 'OnFailure', 0),
    ]);
    await eventually<true>('CrashLoopBackOff', 20_000, async () => {
      const out = await kubectl('get pods --no-headers');
      const complete = [
        /always +0\/1 +CrashLoopBackOff +1 /,
        /never +0\/1 +Error +0 /,
        /once +0\/1 +Completed +0 /,
      ];
      return complete.every((line) => line.test(out)) ? true : { not: out };
    });
    assert.equal((await weft('logs', '--previous', 'always')).out, 'run\n');
    assert.match(await kubectl('describe pod always'), /Exit Code: +3/);
    const { items } = await lab.client.list(EVENTS, { namespace: 'default' });
    assert.ok(
      items.some(({ reason, involvedObject }) => reason === 'BackOff' && involvedObject.name === 'always'),
    );
    await kubectl('delete pod always never once --wait=true');
  });

  test('readiness follows the probe, both ways', async () => {
    await apply([
      {
        metadata: { name: 'probed', namespace: 'default' },
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              name: 'main',
              image: 'exec',
              command: ['sleep', 'infinity'],
              readinessProbe: {
                exec: { command: ['test', '-e', `/run/weft/ready-${lab.name}`] },
                periodSeconds: 1,
                failureThreshold: 1,
              },
            },
          ],
        },
      },
    ]);
    await eventually<true>('it to run, unready', 20_000, async () => {
      const out = await kubectl('get pod probed --no-headers');
      return /probed +0\/1 +Running/.test(out) ? true : { not: out };
    });
    const { nodeName } = (await lab.find('probed'))!.spec;
    await lab.must(nodeName!, 'touch', `/run/weft/ready-${lab.name}`);
    await kubectl('wait --for=condition=Ready pod/probed --timeout=20s');
    await lab.must(nodeName!, 'rm', `/run/weft/ready-${lab.name}`);
    await kubectl('wait --for=condition=Ready=false pod/probed --timeout=20s');
    assert.match(await kubectl('describe pod probed'), /Warning +Unhealthy .*Readiness probe failed/);
    await kubectl('delete pod probed both host --wait=true');
  });

  test('what the server refuses is refused with its reason', async () => {
    const bad = await run(
      kubectlPath!,
      ['apply', '-f', '-'],
      'apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: []}\n',
    );
    assert.notEqual(bad.code, 0);
    assert.match(bad.err, /spec\.containers/);
    const unknown = await run(kubectlPath!, ['get', 'gadgets']);
    assert.match(unknown.err, /the server doesn't have a resource type "gadgets"/);
    assert.match((await run(kubectlPath!, ['get', 'pod', 'nobody'])).err, /NotFound/);
  });
});
