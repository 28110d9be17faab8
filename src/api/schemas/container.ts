/** core/v1 containers. */
import {
  bool,
  int,
  int64,
  intOrString,
  keyed,
  like,
  list,
  map,
  named,
  object,
  oneOf,
  port,
  quantity,
  type Schema,
  str,
  strings,
} from '../schema.ts';
import { objectFieldSelector, resourceFieldSelector } from './volumes.ts';

const core = (kind: string): string => `io.k8s.api.core.v1.${kind}`;
const quantities = map(quantity());

const containerPort = named(core('ContainerPort'), 'A port that the container listens on.', {
  name: str('Name, for probes and services.', { maxLength: 15 }),
  'containerPort!': port('Port in the pod.'),
  hostPort: int('Port of the node that leads here.', { minimum: 0, maximum: 65535 }),
  hostIP: str('Address of the node to bind hostPort to.'),
  protocol: oneOf(['TCP', 'UDP', 'SCTP'], 'TCP, UDP or SCTP.', { default: 'TCP' }),
});

const keySelector = (kind: string): Schema =>
  object(`A key of a ${kind}.`, {
    name: str('Name of the object.', { default: '' }),
    'key!': str('Key.'),
    optional: bool('Whether it may be missing.'),
  });

const envVar = named(core('EnvVar'), 'An environment variable.', {
  'name!': str('Name.'),
  value: str('Value; $(NAME) is replaced by the variable NAME.'),
  valueFrom: named(core('EnvVarSource'), 'Where the value comes from.', {
    fieldRef: objectFieldSelector,
    resourceFieldRef: resourceFieldSelector,
    configMapKeyRef: keySelector('ConfigMap'),
    secretKeyRef: keySelector('Secret'),
    fileKeyRef: object('A key of a file in a volume.', {
      'volumeName!': str(),
      'path!': str(),
      'key!': str(),
      optional: bool(),
    }),
  }),
});

const envFrom = named(core('EnvFromSource'), 'Variables from all keys of an object.', {
  prefix: str('Put before each key.'),
  configMapRef: object('A ConfigMap.', { name: str('', { default: '' }), optional: bool() }),
  secretRef: object('A Secret.', { name: str('', { default: '' }), optional: bool() }),
});

const httpHeader = named(core('HTTPHeader'), 'A header to send.', { 'name!': str(), 'value!': str() });

const exec = named(core('ExecAction'), 'Runs a command; exit code 0 is success.', {
  command: strings('Command and arguments; no shell.'),
});
const httpGet = named(core('HTTPGetAction'), 'An HTTP GET; 200 to 399 is success.', {
  path: str('Path.', { default: '/' }),
  'port!': intOrString('Number or name of the port.'),
  host: str('Host to connect to; default: the pod.'),
  scheme: oneOf(['HTTP', 'HTTPS'], 'HTTP or HTTPS.', { default: 'HTTP' }),
  httpHeaders: list(httpHeader, 'Headers to send.'),
});
const tcpSocket = named(core('TCPSocketAction'), 'Opens a connection.', {
  'port!': intOrString('Number or name of the port.'),
  host: str('Host to connect to; default: the pod.'),
});

const probe = named(core('Probe'), 'A check of a container.', {
  exec,
  httpGet,
  tcpSocket,
  grpc: object('A gRPC health check.', { 'port!': port(), service: str('', { default: '' }) }),
  initialDelaySeconds: int('Seconds before the first check.', { minimum: 0 }),
  timeoutSeconds: int('Seconds until a check has failed.', { minimum: 1, default: 1 }),
  periodSeconds: int('Seconds between checks.', { minimum: 1, default: 10 }),
  successThreshold: int('Successes in a row that make it succeed.', { minimum: 1, default: 1 }),
  failureThreshold: int('Failures in a row that make it fail.', { minimum: 1, default: 3 }),
  terminationGracePeriodSeconds: int64('Grace period when this probe ends the container.', { minimum: 1 }),
});

const handler = named(core('LifecycleHandler'), 'What to do at a moment of the life of a container.', {
  exec,
  httpGet,
  tcpSocket,
  sleep: object('Waits.', { 'seconds!': int64() }),
});

export const seLinuxOptions = named(core('SELinuxOptions'), 'SELinux label.', {
  user: str(),
  role: str(),
  type: str(),
  level: str(),
});
const profile = (name: string): Schema =>
  named(core(name), 'A confinement profile.', {
    'type!': oneOf(['Localhost', 'RuntimeDefault', 'Unconfined']),
    localhostProfile: str(),
  });
export const seccompProfile = profile('SeccompProfile');
export const appArmorProfile = profile('AppArmorProfile');
export const windowsOptions = named(core('WindowsSecurityContextOptions'), 'Windows only.', {
  gmsaCredentialSpec: str(),
  gmsaCredentialSpecName: str(),
  hostProcess: bool(),
  runAsUserName: str(),
});

const securityContext = named(core('SecurityContext'), 'What the container may do.', {
  allowPrivilegeEscalation: bool('Whether a process may gain more than its parent has.'),
  appArmorProfile,
  capabilities: named(core('Capabilities'), 'Linux capabilities.', {
    add: strings('Given.'),
    drop: strings('Taken away.'),
  }),
  privileged: bool('Whether it runs as if on the host.'),
  procMount: str('How /proc is mounted.'),
  readOnlyRootFilesystem: bool('Whether the root file system is read-only.'),
  runAsGroup: int64('Group id.', { minimum: 0 }),
  runAsNonRoot: bool('Refuse to run as root.'),
  runAsUser: int64('User id.', { minimum: 0 }),
  seLinuxOptions,
  seccompProfile,
  windowsOptions,
});

export const resourceRequirements = named(core('ResourceRequirements'), 'What is needed and allowed.', {
  limits: { ...quantities, description: 'Most it may use.' },
  requests: { ...quantities, description: 'What it is promised.' },
  claims: list(
    named(core('ResourceClaim'), 'A claim of the pod.', { 'name!': str(), request: str() }),
    'Claims it uses.',
    // No patch strategy in Kubernetes: replaced as a whole by strategic merge.
    { listType: 'map', listKeys: ['name'] },
  ),
});

const volumeMount = named(core('VolumeMount'), 'Where a volume appears in the container.', {
  'name!': str('Name of the volume.'),
  'mountPath!': str('Path in the container.'),
  mountPropagation: oneOf(['None', 'HostToContainer', 'Bidirectional']),
  readOnly: bool('Whether it is read-only.'),
  recursiveReadOnly: oneOf(['Disabled', 'IfPossible', 'Enabled']),
  subPath: str('Path in the volume.'),
  subPathExpr: str('Path in the volume, with variables.'),
});

const fields: Record<string, Schema> = {
  'name!': str('Name, unique in the pod; a DNS label. Cannot be changed.'),
  image: str('Image to run.'),
  command: strings('Replaces the entry point of the image; no shell.'),
  args: strings('Arguments of the entry point.'),
  workingDir: str('Working directory.'),
  ports: keyed(containerPort, ['containerPort', 'protocol'], 'Ports that it listens on.'),
  envFrom: list(envFrom, 'Variables from objects.'),
  env: keyed(envVar, ['name'], 'Variables.'),
  resources: like(resourceRequirements, { default: {} }),
  resizePolicy: list(
    named(core('ContainerResizePolicy'), 'What a change of resources does.', {
      'resourceName!': str(),
      'restartPolicy!': str(),
    }),
    'What a change of resources does.',
  ),
  restartPolicy: str('Overrides the restart policy of the pod.'),
  restartPolicyRules: list(
    named(core('ContainerRestartRule'), 'When to restart.', {
      'action!': str(),
      exitCodes: object('', { 'operator!': str(), values: list(int()) }),
    }),
  ),
  volumeMounts: keyed(volumeMount, ['mountPath'], 'Volumes to mount.'),
  volumeDevices: keyed(
    named(core('VolumeDevice'), 'A raw block device.', { 'name!': str(), 'devicePath!': str() }),
    ['devicePath'],
    'Block devices to map.',
  ),
  livenessProbe: like(probe, { description: 'The container is restarted when this fails.' }),
  readinessProbe: like(probe, { description: 'The container gets no traffic while this fails.' }),
  startupProbe: like(probe, { description: 'Other probes wait until this succeeds.' }),
  lifecycle: named(core('Lifecycle'), 'Actions at start and end.', {
    postStart: handler,
    preStop: handler,
    stopSignal: str(),
  }),
  terminationMessagePath: str('File whose contents become the final message.', {
    default: '/dev/termination-log',
  }),
  terminationMessagePolicy: oneOf(['File', 'FallbackToLogsOnError'], 'Where the final message comes from.', {
    default: 'File',
  }),
  imagePullPolicy: oneOf(['Always', 'IfNotPresent', 'Never'], 'When to pull the image.'),
  securityContext,
  stdin: bool('Whether standard input stays open.'),
  stdinOnce: bool('Whether standard input is closed after the first attachment.'),
  tty: bool('Whether it gets a terminal.'),
};

export const container: Schema = named(core('Container'), 'A program run in the pod.', fields);
export const ephemeralContainer: Schema = named(
  core('EphemeralContainer'),
  'A container added to a running pod to look into it.',
  { ...fields, targetContainerName: str('Container whose namespaces it joins.') },
);
