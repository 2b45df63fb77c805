/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "addToRunTimeSelectionTable.H"
#include "globalIndex.H"
#include "labelIOList.H"
#include "volFields.H"

#include <limits>
#include <type_traits>
#include <vector>

// * * * * * * * * * * * * * * Static Data Members * * * * * * * * * * * * * //

namespace Foam
{
namespace functionObjects
{
    defineTypeNameAndDebug(penstockStream, 0);
    addToRunTimeSelectionTable(functionObject, penstockStream, dictionary);
}
}

namespace
{
    // How a scalar of this OpenFOAM travels (WM_DP, WM_SPDP; WM_SP)
    const penstock_dtype scalarDtype =
    (
        sizeof(Foam::scalar) == 8 ? PENSTOCK_FLOAT64 : PENSTOCK_FLOAT32
    );

    const double noTime = std::numeric_limits<double>::quiet_NaN();
}


// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

Foam::string Foam::functionObjects::penstockStream::said
(
    const penstock_status status
) const
{
    return status == PENSTOCK_OK ? string() : string(penstock_error(stream_));
}


template<class Type>
Foam::direction Foam::functionObjects::penstockStream::components
(
    const word& name
) const
{
    typedef GeometricField<Type, fvPatchField, volMesh> fieldType;

    return
    (
        mesh_.foundObject<fieldType>(name)
      ? direction(pTraits<Type>::nComponents)
      : direction(0)
    );
}


Foam::direction Foam::functionObjects::penstockStream::componentsOf
(
    const word& name
) const
{
    // At most one of them is not 0
    return
        components<scalar>(name)
      + components<vector>(name)
      + components<sphericalTensor>(name)
      + components<symmTensor>(name)
      + components<tensor>(name);
}


Foam::wordList Foam::functionObjects::penstockStream::available() const
{
    DynamicList<word> names;

    for (const word& name : mesh_.sortedNames())
    {
        if (componentsOf(name) && !name.endsWith("_0")) // not old time levels
        {
            names.append(name);
        }
    }

    return wordList(std::move(names));
}


Foam::string Foam::functionObjects::penstockStream::open()
{
    string problem
    (
        said
        (
            penstock_connect
            (
                &stream_,
                connect_.empty() ? nullptr : connect_.c_str(),
                uint32_t(Pstream::parRun() ? Pstream::myProcNo() : 0),
                uint32_t(Pstream::parRun() ? Pstream::nProcs() : 1)
            )
        )
    );

    if (problem.empty())
    {
        problem = said(penstock_begin(stream_));
    }
    if (problem.empty())
    {
        problem = announce();
    }
    if (problem.empty())
    {
        problem = sendMesh();
    }
    if (problem.empty())
    {
        Info<< type() << " " << name() << ": streaming " << flatOutput(fields_)
            << " of " << nCells_ << " cells, simulation "
            << penstock_simulation(stream_) << " attempt "
            << penstock_attempt(stream_) << endl;
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::announce()
{
    const globalIndex cells(mesh_.nCells());
    nCells_ = cells.size();
    firstCell_ = cells.localStart();

    const uint64_t shape = uint64_t(nCells_);
    std::vector<penstock_field> announced;

    for (const word& name : fields_)
    {
        const direction nComponents = componentsOf(name);

        if (!nComponents)
        {
            OStringStream names;
            names << flatOutput(available());

            return
                "field " + name + " does not exist, or is not a field of cell "
                "values; this solver has " + names.str()
              + ": correct 'fields' in the entry " + this->name()
              + " of controlDict";
        }

        announced.push_back
        ({
            name.c_str(), scalarDtype, uint32_t(nComponents), 1, &shape, 0
        });
    }

    announced.push_back
    ({
        "cell_centres", PENSTOCK_FLOAT64, 3, 1, &shape, 1
    });
    announced.push_back
    ({
        "cell_volumes", PENSTOCK_FLOAT64, 1, 1, &shape, 1
    });

    const string problem
    (
        said(penstock_announce(stream_, announced.data(), announced.size()))
    );

    return
    (
        problem.empty() && Pstream::parRun()
      ? sendAddressing(label(announced.size()))
      : problem
    );
}


Foam::string Foam::functionObjects::penstockStream::sendAddressing
(
    const label nFields
)
{
    const labelIOList addressing
    (
        IOobject
        (
            "cellProcAddressing",
            mesh_.facesInstance(),
            polyMesh::meshSubDir,
            mesh_,
            IOobject::READ_IF_PRESENT,
            IOobject::NO_WRITE,
            false
        )
    );

    // A mesh that was made in parallel has no other order than processor by
    // processor
    const bool known = addressing.size() == mesh_.nCells();
    if (!returnReduce(known, andOp<bool>()))
    {
        Info<< type() << " " << name() << ": no cellProcAddressing of this mesh"
            << " (decomposePar writes it); cells are sent processor by"
            << " processor" << endl;
        return string();
    }

    const std::vector<int64_t> cells(addressing.cbegin(), addressing.cend());
    string problem;

    for (label fieldi = 0; fieldi < nFields && problem.empty(); ++fieldi)
    {
        problem = said
        (
            penstock_indices
            (
                stream_, size_t(fieldi), cells.data(), uint64_t(cells.size())
            )
        );
    }
    firstCell_ = 0; // offsets are those of this list from here on

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendMesh()
{
    const size_t centres = size_t(fields_.size()), volumes = centres + 1;
    std::vector<double> values; // geometry travels as float64, whatever a scalar is
    string problem;

    if (penstock_wanted(stream_, centres))
    {
        const vectorField& c = mesh_.cellCentres();

        values.reserve(3*size_t(c.size()));
        for (const vector& centre : c)
        {
            values.insert(values.end(), centre.cbegin(), centre.cend());
        }

        problem = said
        (
            penstock_send
            (
                stream_, centres, PENSTOCK_STATIC_STEP, noTime,
                PENSTOCK_FLOAT64, values.data(), 3*uint64_t(firstCell_),
                values.size()
            )
        );
    }

    if (problem.empty() && penstock_wanted(stream_, volumes))
    {
        const scalarField& v = mesh_.cellVolumes();

        values.assign(v.cbegin(), v.cend());

        problem = said
        (
            penstock_send
            (
                stream_, volumes, PENSTOCK_STATIC_STEP, noTime,
                PENSTOCK_FLOAT64, values.data(), uint64_t(firstCell_),
                values.size()
            )
        );
    }

    return problem;
}


template<class Type>
Foam::string Foam::functionObjects::penstockStream::sendField
(
    const label fieldi,
    bool& found
)
{
    typedef GeometricField<Type, fvPatchField, volMesh> fieldType;

    const fieldType* field = mesh_.findObject<fieldType>(fields_[fieldi]);

    if (!field)
    {
        return string();
    }
    found = true;

    const Field<Type>& values = field->primitiveField();
    const uint64_t n = pTraits<Type>::nComponents;

    static_assert
    (
        sizeof(Type) == pTraits<Type>::nComponents*sizeof(scalar),
        "components lie side by side"
    );

    return said
    (
        penstock_send
        (
            stream_, size_t(fieldi), step_, time_.value(), scalarDtype,
            values.cdata(), n*uint64_t(firstCell_), n*uint64_t(values.size())
        )
    );
}


Foam::string Foam::functionObjects::penstockStream::sendFields()
{
    if (returnReduce(mesh_.nCells(), sumOp<label>()) != nCells_)
    {
        return
            "the mesh has " + Foam::name(returnReduce(mesh_.nCells(), sumOp<label>()))
          + " cells, it had " + Foam::name(nCells_) + " when the stream began: "
            "a mesh that is refined or whose cells come and go cannot be streamed";
    }

    forAll(fields_, fieldi)
    {
        bool found = false;
        string problem(sendField<scalar>(fieldi, found));

        if (!found)
        {
            problem = sendField<vector>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<sphericalTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<symmTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<tensor>(fieldi, found);
        }
        if (!found)
        {
            problem =
                "field " + fields_[fieldi] + " existed at the first time step "
                "but is gone now: stream fields that the solver keeps";
        }
        if (!problem.empty())
        {
            return problem;
        }
    }

    ++step_;
    return said(penstock_step_sent(stream_));
}


Foam::string Foam::functionObjects::penstockStream::sendStep()
{
    sentIndex_ = time_.timeIndex();

    const string problem(stream_ ? string() : open());

    return problem.empty() ? sendFields() : problem;
}


void Foam::functionObjects::penstockStream::raise(const string& problem) const
{
    if (!problem.empty())
    {
        FatalErrorInFunction
            << "penstock: " << problem.c_str() << nl
            << exit(FatalError);
    }
}


void Foam::functionObjects::penstockStream::finish()
{
    if (finished_)
    {
        return;
    }
    finished_ = true;

    raise(problem_);
    if (!stream_)
    {
        raise
        (
            "the run has ended before any time step was sent: executeInterval"
            " (or timeStart) in the entry " + name()
          + " of controlDict lies beyond the run"
        );
        return;
    }

    raise(said(penstock_finish(stream_)));

    Info<< type() << " " << name() << ": " << step_
        << " time steps streamed" << endl;
}


// * * * * * * * * * * * * * * * * Constructors  * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::penstockStream
(
    const word& name,
    const Time& runTime,
    const dictionary& dict
)
:
    fvMeshFunctionObject(name, runTime, dict),
    fields_(),
    connect_(),
    every_(1),
    sendInitial_(false),
    stream_(nullptr),
    step_(0),
    sentIndex_(-1),
    finished_(false),
    nCells_(0),
    firstCell_(0),
    problem_()
{
    read(dict);

    if (sendInitial_)
    {
        problem_ = sendStep();
    }
}


// * * * * * * * * * * * * * * * * Destructor  * * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::~penstockStream()
{
    // OpenFOAM's timeControl calls end() only where the last time step is one
    // at which it also executes or writes
    if
    (
        time_.timeIndex() != time_.startTimeIndex()
     && time_.value() > time_.endTime().value() - 0.5*time_.deltaTValue()
    )
    {
        finish();
    }

    penstock_close(stream_);
}


// * * * * * * * * * * * * * * * Member Functions  * * * * * * * * * * * * * //

bool Foam::functionObjects::penstockStream::read(const dictionary& dict)
{
    fvMeshFunctionObject::read(dict);

    const wordList fields(dict.get<wordList>("fields"));

    if (fields.empty())
    {
        FatalIOErrorInFunction(dict)
            << "penstock: no fields: name those to stream, such as fields (U p);"
            << exit(FatalIOError);
    }
    if (stream_ && fields != fields_)
    {
        FatalIOErrorInFunction(dict)
            << "penstock: the fields cannot change while they are streamed:"
            << " they were " << flatOutput(fields_) << ", now "
            << flatOutput(fields)
            << exit(FatalIOError);
    }

    const word control(dict.getOrDefault<word>("executeControl", "timeStep"));
    const word writing(dict.getOrDefault<word>("writeControl", "timeStep"));

    // OpenFOAM executes a function object also whenever it writes, which by
    // default is each time step: timeStep is looked after here, in execute()
    every_ = 1;
    if (control == "timeStep")
    {
        every_ = max(1, dict.getOrDefault<label>("executeInterval", 1));
    }
    else if (writing != "none")
    {
        FatalIOErrorInFunction(dict)
            << "penstock: executeControl " << control
            << " needs writeControl none; beside it, or OpenFOAM would send"
            << " at each write too"
            << exit(FatalIOError);
    }

    fields_ = fields;
    connect_ = dict.getOrDefault<fileName>("connect", fileName());
    connect_.expand();
    sendInitial_ = dict.getOrDefault("sendInitial", false);

    return true;
}


bool Foam::functionObjects::penstockStream::execute()
{
    // Once a time step, however often the function objects are run in it
    if
    (
        problem_.empty()
     && sentIndex_ != time_.timeIndex()
     && time_.timeIndex() % every_ == 0
    )
    {
        problem_ = sendStep();
    }

    raise(problem_);
    return true;
}


bool Foam::functionObjects::penstockStream::write()
{
    return true;
}


bool Foam::functionObjects::penstockStream::end()
{
    finish();
    return true;
}


// ************************************************************************* //
