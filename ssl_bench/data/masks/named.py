"""`camvid:PATH` and `cityscapes:PATH`: two sets of street scenes in the layouts that they have.

camvid       PATH/train/, trainannot/ …  indices of 11 classes and void (SegNet's), or
             PATH/train/, train_labels/ … and class_dict.csv: 32 colours, read as the 11 classes
cityscapes   PATH/leftImg8bit/train/<city>/…_leftImg8bit.png
             PATH/gtFine/train/<city>/…_gtFine_labelIds.png: 34 indices, read as the 19 classes
"""

from ssl_bench.data.dataset import VOID
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.masks.dataset import MasksDataset, find_pairs
from ssl_bench.data.masks.key import Key, key_file, read_key
from ssl_bench.data.paths import asked_folder
from ssl_bench.errors import DataError

# Brostow et al. 2009; the 11 of Badrinarayanan et al. (SegNet, arXiv 1511.00561), in their order.
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car",
          "pedestrian", "bicyclist")  # fmt: skip
CAMVID_GROUPS = {
    "sky": "sky",
    "building": "archway bridge building tunnel wall",
    "pole": "column_pole trafficcone",
    "road": "lanemkgsdriv lanemkgsnondriv road",
    "pavement": "parkingblock roadshoulder sidewalk",
    "tree": "tree vegetationmisc",
    "signsymbol": "misc_text signsymbol trafficlight",
    "fence": "fence",
    "car": "car othermoving suvpickuptruck train truck_bus",
    "pedestrian": "animal cartluggagepram child pedestrian",
    "bicyclist": "bicyclist motorcyclescooter",
}
# Cordts et al., arXiv 1604.01685: the id in labelIds of the classes that are judged, in order.
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip


def camvid(argument: str) -> MasksDataset:
    """CamVid with 11 classes, whichever of the two layouts it has."""
    root, options, name = asked_folder("camvid", argument, OPTIONS, "camvid:PATH")
    if found := key_file(root):
        groups = {name: group for group, names in CAMVID_GROUPS.items() for name in names.split()}
        key = read_key(found).grouped(groups, CAMVID)
    else:
        indices = {index: 1 + index for index in range(len(CAMVID))}
        key = Key(CAMVID, indices | {len(CAMVID): VOID, VOID: VOID})
    return MasksDataset(name, root, find_pairs(root), key, Draw.of(options))


def cityscapes(argument: str) -> MasksDataset:
    """Cityscapes' fine annotations: train, and val as the test, whose labels are public."""
    root, _, name = asked_folder("cityscapes", argument, (), "cityscapes:PATH")
    folders = {
        split: (root / "leftImg8bit" / split, root / "gtFine" / split) for split in ("train", "val")
    }
    if missing := [at for pair in folders.values() for at in pair if not at.is_dir()]:
        raise DataError(f"{root} has no {missing[0].relative_to(root)}/: unpack both archives")
    ours = {number: 1 + place for place, number in enumerate(CITYSCAPES.values())}
    key = Key(tuple(CITYSCAPES), {number: ours.get(number, VOID) for number in range(256)})
    return MasksDataset(name, root, folders, key, ending="_labelIds.png")
