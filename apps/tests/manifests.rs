//! The manifests of `docs/guide/kubernetes` without a cluster: only fields that the API has, of the API's types; references that
//! lead somewhere; network configurations that the plugin takes; command lines that this program takes.
//!
//! The shapes are those of the Kubernetes API reference (v1, apps/v1, batch/v1) and of the Network Plumbing Working Group's
//! custom resource, as far as the manifests use them: a field that is not here is a failure, right or wrong.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::process::{Command, Stdio};

use common::{linecard, run, skip};
use linecard_cni::claim::{Claim, DRIVER, Parameters};
use linecard_cni::{Config, Environment, Mode, Network};
use serde::Deserialize;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

type Map = BTreeMap<String, String>;

/// Structures that refuse what they do not have.
macro_rules! shapes {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[derive(Clone, Debug, Default, Deserialize)]
            #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
            struct $name { $($field: $type),* }
        )*
    };
}

shapes! {
    ObjectMeta { name: String, namespace: String, labels: Map, annotations: Map }
    NamespaceObject { api_version: String, kind: String, metadata: ObjectMeta }
    NetworkAttachmentDefinition { api_version: String, kind: String, metadata: ObjectMeta, spec: NetworkSpec }
    NetworkSpec { config: String }
    DaemonSet { api_version: String, kind: String, metadata: ObjectMeta, spec: DaemonSetSpec }
    DaemonSetSpec { selector: LabelSelector, update_strategy: UpdateStrategy, template: PodTemplate }
    LabelSelector { match_labels: Map }
    UpdateStrategy { r#type: String, rolling_update: RollingUpdate }
    RollingUpdate { max_unavailable: u32 }
    PodTemplate { metadata: ObjectMeta, spec: PodSpec }
    Pod { api_version: String, kind: String, metadata: ObjectMeta, spec: PodSpec }
    Job { api_version: String, kind: String, metadata: ObjectMeta, spec: JobSpec }
    JobSpec { backoff_limit: u32, template: PodTemplate }
    PodSpec {
        priority_class_name: String, automount_service_account_token: bool, termination_grace_period_seconds: u64,
        tolerations: Vec<Toleration>, init_containers: Vec<Container>, containers: Vec<Container>, volumes: Vec<Volume>,
        security_context: PodSecurity, restart_policy: String, affinity: Affinity, resource_claims: Vec<PodClaim>,
    }
    PodClaim { name: String, resource_claim_template_name: String }
    DeviceClass { api_version: String, kind: String, metadata: ObjectMeta, spec: DeviceClassSpec }
    DeviceClassSpec { selectors: Vec<Selector> }
    Selector { cel: Cel }
    Cel { expression: String }
    ResourceClaimTemplate { api_version: String, kind: String, metadata: ObjectMeta, spec: ClaimTemplateSpec }
    ClaimTemplateSpec { metadata: ObjectMeta, spec: ClaimSpec }
    ClaimSpec { devices: DeviceClaim }
    DeviceClaim { requests: Vec<DeviceRequest>, config: Vec<DeviceConfig> }
    DeviceRequest { name: String, exactly: ExactRequest }
    ExactRequest { device_class_name: String, selectors: Vec<Selector>, count: u64 }
    DeviceConfig { requests: Vec<String>, opaque: Opaque }
    Opaque { driver: String, parameters: Value }
    ContainerClaim { name: String, request: String }
    Toleration { operator: String }
    PodSecurity { run_as_non_root: bool, run_as_user: u64, seccomp_profile: Seccomp }
    Seccomp { r#type: String }
    Affinity { pod_affinity: PodAffinity }
    PodAffinity { required_during_scheduling_ignored_during_execution: Vec<AffinityTerm> }
    AffinityTerm { topology_key: String, label_selector: LabelSelector }
    Container {
        name: String, image: String, command: Vec<String>, security_context: Security, resources: Resources,
        volume_mounts: Vec<VolumeMount>,
    }
    Security {
        allow_privilege_escalation: Option<bool>, read_only_root_filesystem: bool, capabilities: Capabilities,
    }
    Capabilities { drop: Vec<String>, add: Vec<String> }
    Resources { requests: Map, limits: Map, claims: Vec<ContainerClaim> }
    VolumeMount { name: String, mount_path: String, mount_propagation: String }
    HostPath { path: String, r#type: String }
    DownwardApi { items: Vec<DownwardItem> }
    DownwardItem { path: String, field_ref: FieldRef }
    FieldRef { field_path: String }
}

/// Written as the API does, which is no rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Volume {
    name: String,
    #[serde(rename = "hostPath")]
    host_path: HostPath,
    #[serde(rename = "downwardAPI")]
    downward_api: DownwardApi,
}

/// The documents of every manifest.
fn documents() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/kubernetes");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let parsed =
            YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        all.extend(parsed.iter().map(json));
    }
    all
}

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(text) => text.parse::<f64>().map(Value::from).unwrap(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::String(text) => text.as_str().into(),
        Yaml::Boolean(flag) => (*flag).into(),
        Yaml::Array(list) => list.iter().map(json).collect(),
        Yaml::Hash(map) => {
            map.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), json(value))).collect()
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => panic!("{yaml:?} is not for manifests"),
    }
}

fn of<T: for<'a> Deserialize<'a>>(kind: &str, version: &str) -> Vec<T> {
    let ours = documents().into_iter().filter(|document| document["kind"] == kind);
    let read: Vec<T> = ours
        .map(|document| {
            assert_eq!(document["apiVersion"], version, "{kind}");
            serde_json::from_value(document.clone())
                .unwrap_or_else(|error| panic!("{kind}: {error} in {document:#}"))
        })
        .collect();
    assert!(!read.is_empty(), "no {kind}");
    read
}

/// Every pod that a manifest makes, with its labels and annotations.
fn pods() -> Vec<(ObjectMeta, PodSpec)> {
    let sets = of::<DaemonSet>("DaemonSet", "apps/v1")
        .into_iter()
        .map(|set| (set.spec.template.metadata, set.spec.template.spec));
    let alone = of::<Pod>("Pod", "v1").into_iter().map(|pod| (pod.metadata, pod.spec));
    let jobs = of::<Job>("Job", "batch/v1")
        .into_iter()
        .map(|job| (job.spec.template.metadata, job.spec.template.spec));
    sets.chain(alone).chain(jobs).collect()
}

fn networks() -> Vec<NetworkAttachmentDefinition> {
    of("NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1")
}

#[test]
fn every_object_has_the_shape_of_its_kind() {
    let kinds = [
        "Namespace",
        "DaemonSet",
        "NetworkAttachmentDefinition",
        "Pod",
        "Job",
        "DeviceClass",
        "ResourceClaimTemplate",
    ];
    for document in documents() {
        assert!(kinds.iter().any(|kind| document["kind"] == *kind), "no shape for {document:#}");
    }
    let namespaces: BTreeSet<String> = of::<NamespaceObject>("Namespace", "v1")
        .into_iter()
        .map(|namespace| namespace.metadata.name)
        .collect();
    for set in of::<DaemonSet>("DaemonSet", "apps/v1") {
        assert!(namespaces.contains(&set.metadata.namespace), "{set:?}");
        assert!(!set.spec.selector.match_labels.is_empty());
        for (key, value) in &set.spec.selector.match_labels {
            assert_eq!(
                set.spec.template.metadata.labels.get(key),
                Some(value),
                "the selector finds its pods"
            );
        }
        assert_eq!(
            (
                set.spec.update_strategy.r#type.as_str(),
                set.spec.update_strategy.rolling_update.max_unavailable
            ),
            ("RollingUpdate", 1)
        );
    }
    for job in of::<Job>("Job", "batch/v1") {
        assert!(["Never", "OnFailure"].contains(&job.spec.template.spec.restart_policy.as_str()), "{job:?}");
        assert_eq!(job.spec.backoff_limit, 0);
    }
}

/// The second opinion is that of the models which the Kubernetes project generates from its OpenAPI schema.
#[test]
fn the_models_of_the_kubernetes_client_take_every_object() {
    const TEST: &str = "the_models_of_the_kubernetes_client_take_every_object";
    /// Debian's, for which python3-kubernetes is installed.
    const PYTHON: &str = "/usr/bin/python3";
    let installed = Command::new(PYTHON).args(["-c", "import kubernetes.client"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        return skip(TEST, "the Kubernetes client's models are absent (apt-get install python3-kubernetes)");
    }
    let check = |documents: &[Value]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests.py");
        let [stdin, stdout, stderr] = [(); 3].map(|()| Stdio::piped());
        let mut child =
            Command::new(PYTHON).arg(script).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), documents).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let newer = ["NetworkAttachmentDefinition", "DeviceClass", "ResourceClaimTemplate"];
    let mut known = documents();
    known.retain(|document| newer.iter().all(|kind| document["kind"] != *kind));
    // Claims of a pod are newer than the models.
    for pod in known.iter_mut().filter(|document| !document["spec"]["resourceClaims"].is_null()) {
        pod["spec"].as_object_mut().unwrap().remove("resourceClaims");
        pod["spec"]["containers"][0]["resources"].as_object_mut().unwrap().remove("claims");
    }
    let (good, checked, problem) = check(&known);
    assert!(good, "{problem}");
    assert_eq!(checked.lines().count(), known.len(), "{checked}");
    // They do refuse: a misspelt field, a value of another type, a required field that is absent.
    let mut wrong = known.iter().find(|document| document["kind"] == "Pod").unwrap().clone();
    wrong["spec"]["containers"][0]["commnad"] = "true".into();
    assert_eq!(check(&[wrong.clone()]).2, "Pod.spec.containers[0].commnad is no field of V1Container\n");
    wrong["spec"]["containers"] = serde_json::json!([{"name": "a", "image": 7}]);
    assert_eq!(check(&[wrong.clone()]).2, "Pod.spec.containers[0].image is 7, not of type str\n");
    wrong["spec"]["containers"] = serde_json::json!([{"image": "a"}]);
    assert!(check(&[wrong]).2.contains("`name`, must not be `None`"));
}

#[test]
fn mounts_have_volumes_and_containers_no_more_rights_than_they_need() {
    for (about, pod) in pods() {
        let volumes: BTreeSet<&str> = pod.volumes.iter().map(|volume| volume.name.as_str()).collect();
        for volume in &pod.volumes {
            let host = !volume.host_path.path.is_empty();
            assert!(host == volume.downward_api.items.is_empty(), "{volume:?} is one thing");
            assert!(!host || volume.host_path.r#type == "DirectoryOrCreate");
            let fields = volume
                .downward_api
                .items
                .iter()
                .map(|item| (item.path.as_str(), item.field_ref.field_path.as_str()));
            fields.for_each(|field| assert_eq!(field, ("annotations", "metadata.annotations")));
        }
        let mut mounted = BTreeSet::new();
        for container in pod.init_containers.iter().chain(&pod.containers) {
            assert_eq!(container.image, "IMAGE");
            for mount in &container.volume_mounts {
                assert!(
                    volumes.contains(mount.name.as_str()) && mount.mount_path.starts_with('/'),
                    "{mount:?}"
                );
                assert!(["", "HostToContainer"].contains(&mount.mount_propagation.as_str()));
                mounted.insert(mount.name.as_str());
            }
            let security = &container.security_context;
            assert_eq!(
                (security.allow_privilege_escalation, &security.capabilities.drop),
                (Some(false), &vec!["ALL".to_owned()])
            );
            let limits = &container.resources.limits;
            assert!(
                limits.values().chain(container.resources.requests.values()).all(|amount| !amount.is_empty())
            );
        }
        assert_eq!(mounted, volumes, "{about:?}");
        if about.annotations.contains_key("k8s.v1.cni.cncf.io/networks") {
            let security = &pod.security_context;
            assert!(security.run_as_non_root && security.run_as_user > 0, "{about:?}");
            let caps =
                pod.containers.iter().flat_map(|container| &container.security_context.capabilities.add);
            assert_eq!(caps.count(), 0, "a pod with a port needs none");
        }
    }
}

/// A question to the plugin.
fn status() -> Environment {
    Environment::read(|name| (name == "CNI_COMMAND").then(|| OsString::from("STATUS"))).unwrap()
}

#[test]
fn the_plugin_takes_the_networks() {
    let environment = status();
    for definition in networks() {
        let network = Network::parse(definition.spec.config.as_bytes()).unwrap();
        assert_eq!(network.name(), definition.metadata.name);
        assert_eq!(network.types(), ["linecard"]);
        let list: Value = serde_json::from_str(&definition.spec.config).unwrap();
        let mut plugin = list["plugins"][0].clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        let config = Config::read(plugin.to_string().as_bytes(), &environment).unwrap();
        assert_eq!(config.mode, Mode::Abstract, "the only one that needs no volume");
        // Where the switch listens, as its manifest says.
        let switches = of::<DaemonSet>("DaemonSet", "apps/v1");
        let switch = &switches[0].spec.template.spec.containers[0];
        let at = switch.command.iter().position(|word| word == "--socket").unwrap();
        assert_eq!(config.switch.to_str(), switch.command.get(at + 1).map(String::as_str));
        let mount =
            switch.volume_mounts.iter().find(|mount| config.switch.starts_with(&mount.mount_path)).unwrap();
        let volumes = &switches[0].spec.template.spec.volumes;
        let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
        assert_eq!(volume.host_path.path, mount.mount_path, "the plugin sees the same path on the host");
    }
}

#[test]
fn pods_ask_for_networks_that_are_there() {
    let known: BTreeSet<String> = networks().into_iter().map(|network| network.metadata.name).collect();
    let mut asked = 0;
    for (about, pod) in pods() {
        let Some(text) = about.annotations.get("k8s.v1.cni.cncf.io/networks") else { continue };
        // A list in JSON, or names with interfaces (the working group's specification, 4.1.1).
        let names: Vec<String> = match serde_json::from_str::<Vec<Value>>(text) {
            Ok(list) => list
                .iter()
                .map(|entry| {
                    for key in entry.as_object().unwrap().keys() {
                        assert!(
                            ["name", "namespace", "interface", "ips", "mac", "cni-args"].contains(&key.as_str()),
                            "{key}"
                        );
                    }
                    // What Multus passes on to the plugin.
                    let asked = serde_json::json!({"cniVersion": "1.0.0", "name": "any", "args": {"cni": entry["cni-args"]}});
                    Config::read(asked.to_string().as_bytes(), &status()).unwrap();
                    entry["name"].as_str().unwrap().to_owned()
                })
                .collect(),
            Err(_) => text.split(',').map(|name| name.trim().split('@').next().unwrap().to_owned()).collect(),
        };
        assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
        asked += names.len();
        for term in &pod.affinity.pod_affinity.required_during_scheduling_ignored_during_execution {
            assert_eq!(term.topology_key, "kubernetes.io/hostname");
            let matches = |(other, _): &(ObjectMeta, PodSpec)| {
                term.label_selector
                    .match_labels
                    .iter()
                    .all(|(key, value)| other.labels.get(key) == Some(value))
            };
            assert_eq!(pods().iter().filter(|pod| matches(pod)).count(), 1, "{term:?} finds its pod");
        }
    }
    assert!(asked >= 3);
}

/// Claims lead from a container to a class, and what they say of a port is what `linecard port attach` takes.
#[test]
fn claims_ask_for_what_a_port_can_be() {
    const VERSION: &str = "resource.k8s.io/v1";
    let classes: Vec<DeviceClass> = of("DeviceClass", VERSION);
    let templates: Vec<ResourceClaimTemplate> = of("ResourceClaimTemplate", VERSION);
    for class in &classes {
        let [Selector { cel }] = class.spec.selectors.as_slice() else { panic!("{class:?}") };
        assert_eq!(cel.expression, format!("device.driver == \"{DRIVER}\""));
    }
    for ResourceClaimTemplate { spec, .. } in &templates {
        let DeviceClaim { requests, config } = &spec.spec.devices;
        for request in requests {
            let class = &request.exactly.device_class_name;
            assert!(classes.iter().any(|known| known.metadata.name == *class), "{request:?}");
        }
        for DeviceConfig { requests: of, opaque } in config {
            assert!(of.iter().all(|name| requests.iter().any(|request| request.name == *name)), "{of:?}");
            assert_eq!(opaque.driver, DRIVER);
            // Whose driver refuses every other (pkg/devicestate/config.go).
            assert_eq!(opaque.parameters["apiVersion"], format!("{DRIVER}/v1alpha1"));
            assert_eq!(opaque.parameters["kind"], "OvsPortConfig");
            let read = Parameters::read(opaque.parameters.to_string().as_bytes()).unwrap();
            assert_ne!(read, Parameters::default());
        }
    }
    let mut used = 0;
    for (about, pod) in pods() {
        for container in &pod.containers {
            for ContainerClaim { name, request } in &container.resources.claims {
                let claim = pod.resource_claims.iter().find(|claim| claim.name == *name).unwrap();
                let template = &claim.resource_claim_template_name;
                let template = templates.iter().find(|known| known.metadata.name == *template).unwrap();
                let requests = &template.spec.spec.devices.requests;
                assert!(requests.iter().any(|known| known.name == *request), "{about:?}");
                assert_eq!(container.command.last(), Some(request), "the program looks for that name");
                Claim::new(name, request, None).unwrap();
                used += 1;
            }
        }
    }
    assert!(used > 0);
}

#[test]
fn this_program_takes_the_commands() {
    let mut commands = 0;
    for (_, pod) in pods() {
        for container in pod.init_containers.iter().chain(&pod.containers) {
            let (program, arguments) = container.command.split_first().unwrap();
            assert_eq!(program, "linecard");
            // What comes before --help has to be understood.
            let words: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
            let said = run(&mut linecard(&words), b"");
            assert!(said.code == Some(0) && said.err.is_empty(), "{arguments:?}: {said:?}");
            commands += 1;
        }
    }
    assert_eq!(commands, 5);
    let said = run(&mut linecard(&["switch", "--no-such-option", "--help"]), b"");
    assert_eq!(said.code, Some(2), "an option that is not there is found");
}
