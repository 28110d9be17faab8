/** The real kubectl, as a child process with a home of its own. WEFT_TEST_KUBECTL names another one than the PATH's. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startTestServer, type TestServer } from './testing/test-server.ts';

const kubectlPath = process.env.WEFT_TEST_KUBECTL ?? findInPath('kubectl');
let server: TestServer;
let env: NodeJS.ProcessEnv;

function findInPath(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((dir) => join(dir, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
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

function run(args: string[], input?: string): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(kubectlPath as string, args, { env, timeout: 20_000 }, (error, out, err) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, out, err }),
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(input ?? '');
  });
}

async function kubectl(line: string, input?: string): Promise<string> {
  const { code, out, err } = await run(line.split(' '), input);
  assert.equal(code, 0, `kubectl ${line}: ${err}`);
  return out;
}

async function refused(line: string, input?: string): Promise<string> {
  const { code, err } = await run(line.split(' '), input);
  assert.notEqual(code, 0, `kubectl ${line} should have failed`);
  return err;
}

const POD = `
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  terminationGracePeriodSeconds: 5
  nodeSelector: {disk: ssd}
  securityContext: {runAsNonRoot: true, fsGroup: 2000, sysctls: [{name: net.ipv4.ip_forward, value: "1"}]}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
        - matchExpressions: [{key: zone, operator: In, values: [a, b]}]
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
  tolerations: [{key: dedicated, operator: Equal, value: web, effect: NoSchedule}]
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
  initContainers:
  - {name: init, image: agnhost, command: [sh, -c, "true"]}
  containers:
  - name: main
    image: registry.example:5000/agnhost:2.40
    args: [netexec, --http-port=8080]
    ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
    env:
    - {name: A, value: b}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: K, valueFrom: {configMapKeyRef: {name: cm, key: k, optional: true}}}
    envFrom: [{configMapRef: {name: cm}}]
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_ADMIN]}, readOnlyRootFilesystem: true}
    readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 2}
    livenessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 3}
    startupProbe: {exec: {command: [cat, /ok]}, failureThreshold: 30}
    lifecycle: {preStop: {exec: {command: [sleep, "1"]}}}
    volumeMounts: [{name: config, mountPath: /etc/config}, {name: tmp, mountPath: /tmp}, {name: token, mountPath: /token}]
  volumes:
  - {name: config, configMap: {name: cm, items: [{key: k, path: k.txt}]}}
  - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
  - name: token
    projected: {sources: [{serviceAccountToken: {path: token, audience: x}}, {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}
  hostAliases: [{ip: 10.1.2.3, hostnames: [db]}]
  dnsConfig: {nameservers: [10.0.0.10], options: [{name: ndots, value: "2"}]}
`;

describe('kubectl', { skip: kubectlPath ? false : 'there is no kubectl on this machine' }, () => {
  before(async () => {
    server = await startTestServer();
    const home = join(server.dir, 'home');
    mkdirSync(home);
    env = {
      PATH: process.env.PATH,
      HOME: home,
      KUBECONFIG: server.kubeconfig,
      KUBE_EDITOR: 'sed -i s/k:.v/k:\\ edited/',
    };
  });
  after(() => server.close());

  it('applies a manifest with most of what a pod can have, strictly validated, again and again', async () => {
    assert.match(await kubectl('create configmap cm --from-literal=k=v'), /configmap\/cm created/);
    assert.match(await kubectl('apply -f -', POD), /pod\/web created/);
    const version = await kubectl('get pod web -o jsonpath={.metadata.resourceVersion}');
    // kubectl sends the tolerations again, because the server has added its own two; nothing changes by it.
    assert.match(await kubectl('apply -f -', POD), /pod\/web (configured|unchanged)/);
    assert.equal(await kubectl('get pod web -o jsonpath={.metadata.resourceVersion}'), version);
    const changed = POD.replace('agnhost:2.40', 'agnhost:2.41').replace(
      'app: web}\nspec',
      'app: web, tier: front}\nspec',
    );
    assert.match(await kubectl('apply -f -', changed), /pod\/web configured/);
    assert.match(await kubectl('get pod web -o jsonpath={.spec.containers[0].image}'), /agnhost:2.41$/);
    assert.equal(await kubectl('get pods -l tier=front -o name'), 'pod/web\n');
    assert.match(
      await kubectl('apply --dry-run=server -f -', POD.replace('name: web', 'name: dry')),
      /created \(server dry run\)/,
    );
  });

  it('is told of typos and of what is wrong', async () => {
    const typo = await refused(
      'create -f -',
      POD.replace('name: web', 'name: typo').replace('  containers:', '  contaners:'),
    );
    assert.match(typo, /unknown field "spec.contaners"|unknown field "contaners"/);
    const bad = await refused(
      'create -f -',
      POD.replace('name: web', 'name: bad').replace('image: agnhost,', ''),
    );
    assert.match(bad, /The Pod "bad" is invalid: spec.initContainers\[0\].image: Required value/);
    assert.match(await refused('create ns default'), /AlreadyExists/);
    assert.match(await refused('get pod none'), /\(NotFound\): pods "none" not found/);
  });

  it('gets, describes and explains', async () => {
    assert.match(
      await kubectl('get pods'),
      /^NAME +READY +STATUS +RESTARTS +AGE\nweb +0\/1 +Pending +0 +\d+s\n$/,
    );
    assert.match(
      await kubectl('get pods -o wide -A'),
      /NAMESPACE .* IP +NODE +NOMINATED NODE +READINESS GATES/,
    );
    assert.match(await kubectl('get ns'), /default +Active/);
    assert.match(
      await kubectl('describe pod web'),
      /Readiness: +http-get http:\/\/:http\/healthz delay=0s timeout=1s period=2s/,
    );
    assert.match(await kubectl('explain pod.spec.containers.readinessProbe'), /periodSeconds/);
    const resources = await kubectl('api-resources');
    for (const kind of ['ConfigMap', 'Event', 'Namespace', 'Node', 'Pod', 'Lease'])
      assert.match(resources, new RegExp(` ${kind}\n`));
    assert.match(await kubectl('version'), /v1\.32/);
  });

  it('labels, annotates, patches, replaces and edits', async () => {
    await kubectl('label pod web a=b');
    await kubectl('annotate pod web note=x');
    await kubectl('patch pod web -p {"metadata":{"labels":{"p":"strategic"}}}');
    await kubectl(
      'patch pod web --type=json -p [{"op":"replace","path":"/metadata/labels/p","value":"json"}]',
    );
    await kubectl('patch pod web --type=merge -p {"metadata":{"labels":{"a":null}}}');
    assert.match(await kubectl('get pod web --show-labels'), /app=web,p=json/);
    assert.match(await kubectl('edit cm cm'), /edited/);
    assert.equal(await kubectl('get cm cm -o jsonpath={.data.k}'), 'edited');
    await kubectl(
      'replace -f -',
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"},"data":{"k":"replaced"}}',
    );
    assert.equal(await kubectl('get cm cm -o jsonpath={.data.k}'), 'replaced');
  });

  it('watches and waits while others act', async () => {
    const child = spawn(kubectlPath as string, ['get', 'pods', '-w'], {
      env,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let watched = '';
    child.stdout.on('data', (chunk) => {
      watched += String(chunk);
    });
    const until = async (pattern: RegExp): Promise<void> => {
      const deadline = Date.now() + 10_000;
      while (!pattern.test(watched)) {
        assert.ok(Date.now() < deadline, `${pattern} not seen in:\n${watched}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    try {
      await until(/web +0\/1 +Pending/);
      const waiting = kubectl('wait --for=condition=Ready pod/web --timeout=15s');
      const path = '/api/v1/namespaces/default/pods/web';
      await server.admin.post(`${path}/binding`, { target: { kind: 'Node', name: 'n1' } });
      await server.admin.patch(`${path}/status`, {
        status: {
          phase: 'Running',
          podIP: '10.0.0.9',
          podIPs: [{ ip: '10.0.0.9' }],
          conditions: [{ type: 'Ready', status: 'True' }],
          containerStatuses: [
            { name: 'main', image: 'i', imageID: '', ready: true, restartCount: 2, state: { running: {} } },
          ],
        },
      });
      assert.match(await waiting, /condition met/);
      await until(/web +1\/1 +Running +2 /);
      assert.match(await kubectl('get pods -o wide --field-selector=spec.nodeName=n1'), /10\.0\.0\.9 +n1/);
      const deleting = kubectl('delete pod web');
      await until(/web +1\/1 +Terminating/);
      await server.admin.send('DELETE', path, { body: { gracePeriodSeconds: 0 } });
      assert.match(await deleting, /pod "web" deleted/);
    } finally {
      child.kill();
    }
  });

  it('shows nodes and events, and removes a namespace with all in it', async () => {
    await server.admin.post('/api/v1/nodes', {
      metadata: { name: 'n1', labels: { 'node-role.kubernetes.io/worker': '' } },
      status: {
        addresses: [{ type: 'InternalIP', address: '192.0.2.1' }],
        conditions: [{ type: 'Ready', status: 'True' }],
        nodeInfo: {
          kubeletVersion: 'v9',
          osImage: 'Debian',
          kernelVersion: '6',
          containerRuntimeVersion: 'weft://1',
        },
      },
    });
    assert.match(
      await kubectl('get nodes -o wide'),
      /n1 +Ready +worker +\d+s +v9 +192\.0\.2\.1 +<none> +Debian +6 +weft:\/\/1/,
    );
    await server.admin.post('/api/v1/namespaces/default/events', {
      metadata: { name: 'e1' },
      involvedObject: { kind: 'Node', name: 'n1', uid: 'n1' },
      reason: 'LinkRepaired',
      message: 'weft-vxlan was deleted',
      type: 'Warning',
      lastTimestamp: new Date().toISOString(),
    });
    assert.match(
      await kubectl('get events'),
      /\d+s +Warning +LinkRepaired +node\/n1 +weft-vxlan was deleted/,
    );
    assert.match(await kubectl('describe node n1'), /LinkRepaired/);
    assert.match(await kubectl('create ns doomed'), /namespace\/doomed created/);
    await kubectl('run -n doomed p --image=x --restart=Never');
    assert.match(await kubectl('delete ns doomed'), /deleted/);
    assert.match(await refused('get ns doomed'), /NotFound/);
  });

  it('says of kinds that are not served that they are not', async () => {
    assert.match(await refused('get svc'), /the server doesn't have a resource type "svc"/);
    const manifest = (apiVersion: string, kind: string): string =>
      JSON.stringify({ apiVersion, kind, metadata: { name: 'a' }, spec: {} });
    for (const command of ['apply -f -', 'create -f -', 'delete -f -']) {
      assert.match(
        await refused(command, manifest('v1', 'Service')),
        /no matches for kind "Service" in version "v1"/,
      );
      assert.match(
        await refused(command, manifest('apps/v1', 'Deployment')),
        /no matches for kind "Deployment" in version "apps\/v1"/,
      );
    }
    assert.match(await refused('get crds'), /the server doesn't have a resource type "crds"/);
    assert.equal((await server.admin.get('/apis/apiextensions.k8s.io/v1')).code, 404, 'no kind is pretended');
  });

  it('is told clearly that server-side apply is not there yet', async () => {
    assert.match(await refused('apply --server-side -f -', POD), /server-side apply is not served yet/);
  });
});
